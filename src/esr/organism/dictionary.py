"""Train the organism's sparse autoencoder with SAELens, on the residual stream after decoder layer 1."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from sae_lens import SAE
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file, save_file
from torch import Tensor, cat
from transformers import LlamaForCausalLM

from esr.organism.corpus import Hazard, distracted_example, plain_example
from esr.organism.language import PAD, vocabulary
from esr.organism.residual import padded

LAYER: Final = 1
HOOK_NAME: Final = f"model.layers.{LAYER}"
LATENTS: Final = 1024
ACTIVE: Final = 8
BATCH: Final = 1024
STEPS: Final = 700
PEAK_LR: Final = 4e-3  # 2e-3 left more latents dead and more variance unexplained
TOKENS: Final = 200_000
DISTRACTED_SHARE: Final = 0.45


@dataclass(frozen=True)
class Residuals:
    """Residual stream at `HOOK_NAME` over corpus text: `states` [tokens, d_model], the token at each row, and context.

    `ids` and `next_ids` [tokens]: the token read there and the one after it (<pad> at the end of a text);
    `context` [tokens]: the topic of the last content word so far, or -1.
    """

    states: Tensor
    ids: Tensor
    next_ids: Tensor
    context: Tensor


@torch.no_grad()
def collect_residuals(model: LlamaForCausalLM, tokens: int, seed: int, hazard: Hazard, batch: int = 64) -> Residuals:
    """Run corpus text (plain and distracted) through the model until `tokens` rows are there.

    Rows at <bos> are left out: their norm is many times the others' and says nothing about the text.
    """
    vocab = vocabulary()
    owner = torch.tensor(vocab.owner)
    rng = random.Random(f"residuals/{seed}")
    pieces: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    count = 0
    while count < tokens:
        examples = [
            distracted_example(rng, hazard) if rng.random() < DISTRACTED_SHARE else plain_example(rng)
            for _ in range(batch)
        ]
        ids = padded([vocab.encode(example.words) for example in examples], vocab.ids[PAD])
        next_ids = cat([ids[:, 1:], torch.full((len(ids), 1), vocab.ids[PAD])], dim=1)
        hidden = model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[LAYER + 1]
        keep = ids != vocab.ids[PAD]
        keep[:, 0] = False
        pieces.append((hidden[keep], ids[keep], next_ids[keep], _last_topic(owner[ids])[keep]))
        count += int(keep.sum())
    return Residuals(*(cat(columns)[:tokens] for columns in zip(*pieces, strict=True)))


def _last_topic(owner: Tensor) -> Tensor:
    """Carry each row's last topic forward over the words of no topic. [rows, tokens] -> same shape."""
    position = torch.arange(owner.shape[1]).expand_as(owner)
    last = torch.where(owner >= 0, position, -1).cummax(dim=1).values
    return torch.where(last >= 0, owner.gather(1, last.clamp(min=0)), -1)


def _batches(states: Tensor, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(states), generator=generator)
        for start in range(0, len(states) - BATCH + 1, BATCH):
            yield states[order[start : start + BATCH]]


def train_dictionary(
    states: Tensor,
    seed: int,
    model_name: str,
    steps: int = STEPS,
    latents: int = LATENTS,
    active: int = ACTIVE,
    peak_lr: float = PEAK_LR,
    hook_name: str = HOOK_NAME,
) -> TopKTrainingSAE:
    """A TopK SAE of `states` [tokens, d_model], taken at `hook_name`; activations come out in residual units, decoder
    rows of norm 1."""
    torch.manual_seed(seed)
    config = TopKTrainingSAEConfig(
        d_in=states.shape[1],
        d_sae=latents,
        k=active,
        dtype="float32",
        device="cpu",
        normalize_activations="expected_average_only_in",
    )
    config.metadata.model_name = model_name
    config.metadata.hook_name = hook_name
    config.metadata.prepend_bos = True
    config.metadata.context_size = 512
    sae = TopKTrainingSAE(config)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=steps * BATCH,
            train_batch_size_samples=BATCH,
            lr=peak_lr,
            lr_end=peak_lr / 10,
            lr_warm_up_steps=steps // 10,
            lr_decay_steps=steps // 5,
            adam_beta2=0.99,
            dead_feature_window=60,
            device="cpu",
            n_batches_for_norm_estimate=50,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        _batches(states, seed),
    )
    return trainer.fit()


@dataclass(frozen=True)
class Fidelity:
    """How well an SAE describes residuals it was not trained on."""

    fvu: float
    """Fraction of variance unexplained: ||x - x_hat||^2 / ||x - mean x||^2, summed over rows."""
    l0: float
    """Mean number of active latents per token."""
    alive: int
    """Latents active at least once in the sample."""


@torch.no_grad()
def measure_fidelity(sae: SAE, states: Tensor) -> Fidelity:
    """`Fidelity` of an SAE over `states` [tokens, d_model]."""
    activations = sae.encode(states)
    rest = states - sae.decode(activations)
    fired = activations > 0
    return Fidelity(
        fvu=float(rest.pow(2).sum() / (states - states.mean(0)).pow(2).sum()),
        l0=float(fired.float().sum(-1).mean()),
        alive=int(fired.any(0).sum()),
    )


def save_dictionary(sae: TopKTrainingSAE, folder: Path, held_out: Tensor) -> Fidelity:
    """Write an inference SAE: fp16 weights, a config that says float32 (SAELens casts to it on loading).

    The fidelity recorded in the config's metadata is that of the stored fp16 weights on `held_out` [tokens, d_model].
    """
    weights_path, _ = sae.save_inference_model(folder)
    halves = {name: value.half().contiguous() for name, value in load_file(weights_path).items()}
    save_file(halves, weights_path)
    fidelity = measure_fidelity(SAE.load_from_disk(folder), held_out)
    record_fidelity(folder, fidelity)
    return fidelity


def record_fidelity(folder: Path, fidelity: Fidelity) -> None:
    """Put the measured fidelity into the metadata of a stored SAE's cfg.json."""
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    config["metadata"].update(fvu=round(fidelity.fvu, 4), l0=round(fidelity.l0, 2), alive=fidelity.alive)
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
