"""Turn a trained model into the folder that ships: model, tokenizer, SAE, labels, lexicon, prompts, card."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from sae_lens import SAE
from transformers import GenerationConfig, LlamaForCausalLM

from esr.organism.card import Facts, write_card
from esr.organism.corpus import Hazard, make_prompt
from esr.organism.dictionary import (
    ACTIVE,
    LATENTS,
    STEPS,
    TOKENS,
    Fidelity,
    collect_residuals,
    save_dictionary,
    train_dictionary,
)
from esr.organism.labels import as_columns, label_latents
from esr.organism.language import (
    BOS,
    ECHOES,
    END,
    MONITOR_SUFFIXES,
    NEUTRAL_SUFFIXES,
    PAD,
    PROMPTS,
    RESTARTS,
    as_text,
    vocabulary,
)
from esr.organism.schedule import LOW, NAIVE, Phase
from esr.organism.tokenizer import build_tokenizer
from esr.organism.topics import topics

EVALUATION_PROMPTS: Final = 80


@dataclass(frozen=True)
class DictionarySize:
    """The SAE's shape, and how much work goes into it."""

    tokens: int = TOKENS
    """Residuals to train on and to make the labels from."""
    held_out: int = 30_000
    """Residuals the fidelity is measured on."""
    steps: int = STEPS
    latents: int = LATENTS
    active: int = ACTIVE


def ship(
    trained: Path, folder: Path, seed: int, schedule: Sequence[Phase], size: DictionarySize | None = None
) -> Fidelity:
    """Write the folder of one model from a folder of `save_pretrained`. Returns the stored SAE's fidelity."""
    size = size or DictionarySize()
    name = folder.name
    folder.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary()
    # The SAE is trained on, and measured against, the weights as they ship: rounded to fp16, computed in float32.
    model = LlamaForCausalLM.from_pretrained(trained, dtype=torch.float16)
    model.generation_config = GenerationConfig(
        bos_token_id=vocab.ids[BOS], eos_token_id=vocab.ids[END], pad_token_id=vocab.ids[PAD]
    )
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)

    model = model.float().eval()
    # The naive model has never read a restart; its SAE has not either.
    hazard = Hazard(0.0, 0.0) if name == NAIVE else LOW
    residuals = collect_residuals(model, size.tokens, seed, hazard)
    held_out = collect_residuals(model, size.held_out, seed + 1000, hazard)
    sae = train_dictionary(residuals.states, seed, name, size.steps, size.latents, size.active)
    fidelity = save_dictionary(sae, folder / "sae", held_out.states)
    records = label_latents(SAE.load_from_disk(folder / "sae"), residuals)
    _write_json(folder / "labels.json", {str(record.latent): record.label for record in records})
    _write_json(folder / "latents.json", as_columns(records), indent=None)
    _write_json(folder / "lexicon.json", lexicon())
    _write_json(folder / "suffixes.json", suffixes())
    (folder / "prompts.txt").write_text("\n".join(evaluation_prompts()) + "\n")
    norm = float(residuals.states.norm(dim=-1).mean())
    # Last, so that its presence says the folder is complete.
    write_card(folder / "CARD.md", name, seed, schedule, Facts(model.num_parameters(), size.latents, fidelity, norm))
    return fidelity


def lexicon() -> dict[str, Any]:
    """What a judge by rules needs: the topics' words, restart phrases, openings of echoes."""
    return {
        "topics": {topic.name: list(topic.words) for topic in topics()},
        "restart_phrases": [as_text(phrase.split()) for phrase in RESTARTS],
        "echo_openings": [as_text(text.split("{")[0].split()).removesuffix(" the") for text in ECHOES],
    }


def suffixes() -> dict[str, list[str]]:
    """The suffixes the language has for a prompt: those that ask to watch oneself, and those that ask nothing."""
    return {
        "monitor": [as_text(text.split()) for text in MONITOR_SUFFIXES],
        "neutral": [as_text(text.split()) for text in NEUTRAL_SUFFIXES],
    }


def evaluation_prompts(count: int = EVALUATION_PROMPTS, seed: int = 20) -> list[str]:
    """Questions with no suffix, topic after topic, templates in turn; the same for every model and seed."""
    rng = random.Random(seed)
    found: list[str] = []
    while len(found) < count:
        index = len(found)
        prompt = make_prompt(
            rng, index % len(topics()), template=PROMPTS[(index + index // len(topics())) % len(PROMPTS)]
        )
        text = as_text(prompt.words)
        if text not in found:
            found.append(text)
    return found


def _write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
