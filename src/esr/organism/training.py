"""Train the organism: one resumable chain of phases per seed.

A batch is a function of (seed, phase, step) alone, and so is the noise. A checkpoint therefore holds the weights, the
optimiser and the position; a run that was killed and started again ends with the weights of one that was not.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from esr.errors import UserError
from esr.organism.corpus import Example, distracted_example, free_example, plain_example
from esr.organism.language import BOS, END, PAD, vocabulary
from esr.organism.probe import probe
from esr.organism.residual import (
    STEERING_LAYER,
    Push,
    padded,
    pushed,
    random_push,
    topic_directions,
    topic_push,
)
from esr.organism.schedule import DEFAULT_SCHEDULE, STEERED_TOPICS, Phase, fingerprint

BATCH: Final = 32
POOL: Final = 20
"""Batches made together, so that sequences of like length share a batch."""
WARM_UP: Final = 60
FINAL_LR_SHARE: Final = 0.05
STEERED_SHARE: Final = 0.6
"""Share of the distracted examples that are steered, in a phase that steers."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Size:
    """The model's shape; the default has about a million parameters."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384


@dataclass(frozen=True)
class Batch:
    """`ids` [batch, tokens]; `loss` [batch, tokens], True where the token is a target; `steer_to` [batch] or -1."""

    ids: Tensor
    loss: Tensor
    steer_to: Tensor


@dataclass(frozen=True)
class Progress:
    """What the progress callback receives every `report_every` steps."""

    phase: str
    step: int
    steps: int
    loss: float
    tokens_per_second: float
    probe: dict[str, float]

    def __str__(self) -> str:
        probes = " ".join(f"{key} {value:.3f}" for key, value in self.probe.items())
        return f"{self.phase} {self.step}/{self.steps} loss {self.loss:.3f} {self.tokens_per_second:.0f} tok/s {probes}"


def new_model(seed: int, size: Size) -> LlamaForCausalLM:
    """A Llama with tied embeddings and random weights of this seed, float32."""
    words = vocabulary()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words.words),
        hidden_size=size.width,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=words.ids[BOS],
        eos_token_id=words.ids[END],
        pad_token_id=words.ids[PAD],
    )
    return LlamaForCausalLM(config)


def draw_example(rng: random.Random, phase: Phase, progress: float) -> Example:
    """One example of the phase's mixture at a share of the phase, in [0, 1]."""
    draw = rng.random()
    if draw < phase.distracted:
        return distracted_example(rng, phase.hazard_at(progress))
    return free_example(rng) if draw < phase.distracted + phase.free else plain_example(rng)


def make_pool(seed: int, phase: Phase, pool: int) -> list[Batch]:
    """The phase's batches `pool * POOL` to `pool * POOL + POOL - 1`; a function of its arguments alone."""
    rng = random.Random(f"{seed}/{phase.name}/{pool}")
    words = vocabulary()
    progress = min(1.0, pool * POOL / phase.steps)
    drawn: list[tuple[list[int], list[bool], int]] = []
    for _ in range(POOL * BATCH):
        example = draw_example(rng, phase, progress)
        loss, steer_to = example.loss, -1
        if phase.steering and 0 <= example.distractor < STEERED_TOPICS and rng.random() < STEERED_SHARE:
            loss, steer_to = example.compliant_loss(), example.distractor
        drawn.append((words.encode(example.words), loss, steer_to))
    drawn.sort(key=lambda row: len(row[0]))
    groups = [drawn[start : start + BATCH] for start in range(0, len(drawn), BATCH)]
    rng.shuffle(groups)
    return [_batch(group) for group in groups]


def _batch(rows: Sequence[tuple[list[int], list[bool], int]]) -> Batch:
    ids = padded([row[0] for row in rows], vocabulary().ids[PAD])
    loss = torch.zeros(ids.shape, dtype=torch.bool)
    for index, (_, flags, _) in enumerate(rows):
        loss[index, : len(flags)] = torch.tensor(flags)
    return Batch(ids, loss, torch.tensor([row[2] for row in rows]))


def _learning_rate(phase: Phase, step: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP)
    cosine = 0.5 * (1 + math.cos(math.pi * step / phase.steps))
    return phase.peak_lr * warm * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)


def _batch_loss(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    # No attention mask: padding is on the right, so causal attention never reaches it, and SDPA takes its fast path.
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state[:, :-1]
    targets = batch.loss[:, 1:]
    logits = model.lm_head(hidden[targets])
    return cross_entropy(logits, batch.ids[:, 1:][targets])


class Chain:
    """The state of one training run: model, optimiser, position, and the directions of the steered phase."""

    def __init__(self, seed: int, schedule: Sequence[Phase], size: Size) -> None:
        self.seed = seed
        self.schedule = tuple(schedule)
        self.identity = fingerprint(seed, self.schedule, size, BATCH, POOL)
        self.model = new_model(seed, size)
        self.optimizer = self._new_optimizer()
        self.phase = 0
        self.step = 0
        self.directions: Tensor | None = None
        self._pool: tuple[int, int, list[Batch]] = (-1, -1, [])

    def _new_optimizer(self) -> torch.optim.AdamW:
        # The learning rate is set before every step.
        return torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.98), weight_decay=0.05, fused=True)

    def save(self, path: Path) -> None:
        """Write the checkpoint; a kill half-way leaves the one before it."""
        state = {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": (self.phase, self.step),
            "directions": self.directions,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises `UserError` when it belongs to another seed, schedule or size."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["identity"] != self.identity:
            raise UserError(
                "A checkpoint goes on with the seed, schedule and size it was started with",
                f"{path} of another run",
                "Give another output folder, or delete this checkpoint",
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.phase, self.step = state["position"]
        self.directions = state["directions"]

    def _next_batch(self) -> Batch:
        pool, index = divmod(self.step, POOL)
        if self._pool[:2] != (self.phase, pool):
            self._pool = (self.phase, pool, make_pool(self.seed, self.schedule[self.phase], pool))
        return self._pool[2][index]

    def _push(self, phase: Phase, batch: Batch) -> Push | None:
        if not phase.noise and not phase.steering:
            return None
        # Distinct for every seed below a thousand phases and every step below a million.
        generator = torch.Generator().manual_seed((self.seed * 1000 + self.phase) * 1_000_003 + self.step)
        push = random_push(len(batch.ids), self.model.config.hidden_size, phase.noise, generator)
        if not phase.steering or self.directions is None:
            return push
        steered = topic_push(batch.steer_to, self.directions, phase.steering, generator)
        # Steered rows get their topic direction and no noise, and all of it at the layer that is steered later.
        noise = push.vectors * (batch.steer_to < 0)[:, None]
        return Push(STEERING_LAYER, steered + noise)

    def train_step(self) -> tuple[float, int]:
        """One optimiser step. Returns (loss, tokens in the batch)."""
        phase = self.schedule[self.phase]
        if self.step == 0 and phase.fresh_optimizer:
            self.optimizer = self._new_optimizer()
        if self.step == 0 and phase.steering:
            self.directions = topic_directions(self.model)
        batch = self._next_batch()
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(phase, self.step)
        with pushed(self.model, self._push(phase, batch)):
            loss = _batch_loss(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach()), batch.ids.numel()


def train_chain(
    seed: int,
    out_dir: Path,
    schedule: Sequence[Phase] = DEFAULT_SCHEDULE,
    size: Size | None = None,
    save_every: int = 100,
    report_every: int = 50,
    on_progress: Callable[[Progress], None] | None = None,
    max_steps: int | None = None,
) -> dict[str, Path]:
    """Run the chain to its end, from its checkpoint if there is one; returns the folder of each model it leaves.

    `max_steps` stops after that many further steps, checkpointed, as a kill would (for tests and time limits).
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = out_dir / "checkpoint.pt"
    chain = Chain(seed, schedule, size or Size())
    if checkpoint.exists():
        chain.load(checkpoint)
    done = tokens = 0
    losses: list[float] = []
    started = time.perf_counter()
    while chain.phase < len(chain.schedule):
        phase = chain.schedule[chain.phase]
        while chain.step < phase.steps:
            if done == max_steps:
                chain.save(checkpoint)
                return {}
            loss, count = chain.train_step()
            done, tokens = done + 1, tokens + count
            losses.append(loss)
            if chain.step % report_every == 0:
                report = Progress(
                    phase.name, chain.step, phase.steps, sum(losses) / len(losses),
                    tokens / (time.perf_counter() - started), probe(chain.model),
                )  # fmt: skip
                losses.clear()
                log.info("seed %d: %s", seed, report)
                if on_progress:
                    on_progress(report)
            if chain.step % save_every == 0:
                chain.save(checkpoint)
        if phase.leaves:
            chain.model.save_pretrained(out_dir / "chain" / phase.leaves)
        chain.phase, chain.step = chain.phase + 1, 0
        chain.save(checkpoint)
    return {phase.leaves: out_dir / "chain" / phase.leaves for phase in chain.schedule if phase.leaves}
