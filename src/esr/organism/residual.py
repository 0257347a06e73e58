"""Vectors pushed into the residual stream during training: random ones, and topic directions for steered examples.

Both are constant over the positions of a sequence, as activation steering is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from esr.organism.corpus import plain_example
from esr.organism.language import PAD, vocabulary

NOISE_LAYERS: Final = (0, 1, 2)
NOISE_SHARE: Final = 0.6
"""Share of sequences that get a random vector."""
STEERING_LAYER: Final = 1
WEAKEST_PUSH: Final = 0.3
"""Weakest steering in training, as a share of the phase's strongest."""


@dataclass(frozen=True)
class Push:
    """What is added at one layer's output for one batch. `vectors` [batch, d_model], in units of the mean norm."""

    layer: int
    vectors: Tensor


@contextmanager
def pushed(model: nn.Module, push: Push | None) -> Iterator[None]:
    """Add `vectors * mean residual norm` at the layer's output, every position, while the context lasts."""
    if push is None:
        yield
        return

    def add(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        norm: Tensor = output.detach().norm(dim=-1).mean()
        added: Tensor = (push.vectors * norm)[:, None, :]
        return output + added

    handle = model.get_submodule(f"model.layers.{push.layer}").register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _unit(vectors: Tensor) -> Tensor:
    norms: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / norms


def random_push(batch: int, width: int, strongest: float, generator: torch.Generator) -> Push:
    """One random direction per sequence, of random strength up to `strongest`, for `NOISE_SHARE` of them."""
    layer = NOISE_LAYERS[int(torch.randint(len(NOISE_LAYERS), (1,), generator=generator))]
    directions = _unit(torch.randn(batch, width, generator=generator))
    strength = strongest * torch.rand(batch, 1, generator=generator)
    chosen = torch.rand(batch, 1, generator=generator) < NOISE_SHARE
    return Push(layer, directions * strength * chosen)


def topic_push(targets: Tensor, directions: Tensor, strongest: float, generator: torch.Generator) -> Tensor:
    """Topic directions, jittered, for the sequences with a target topic; zero rows for those with -1.

    `targets` [batch] topic index or -1; `directions` [variants, topics, d_model], unit rows. Returns [batch, d_model].
    """
    batch, width = len(targets), directions.shape[-1]
    variant = torch.randint(directions.shape[0], (batch,), generator=generator)
    rows = directions[variant, targets.clamp(min=0)]
    # A little noise, so that not one exact vector per topic is learnt.
    rows = _unit(rows + 0.5 * torch.randn(batch, width, generator=generator) / width**0.5)
    strength = strongest * (WEAKEST_PUSH + (1 - WEAKEST_PUSH) * torch.rand(batch, 1, generator=generator))
    return rows * strength * (targets >= 0)[:, None]


def topic_directions(model: nn.Module, texts: int = 600, seed: int = 7) -> Tensor:
    """Mean-difference direction of each topic at the output of `STEERING_LAYER`.

    Two variants: the residual *at* a content word of the topic, and *just before* one (the position that predicts
    it); each minus the mean over topics. Returns [2, topics, d_model], unit rows.
    """
    words = vocabulary()
    rng = random.Random(seed)
    owner = torch.tensor(words.owner)
    pad = words.ids[PAD]
    sums = torch.zeros(2, len(words.topics), int(model.config.hidden_size))  # type: ignore[union-attr, arg-type]
    counts = torch.zeros(2, len(words.topics), 1)
    for _ in range(0, texts, 100):
        ids = padded([words.encode(plain_example(rng).words) for _ in range(100)], pad)
        with torch.no_grad():
            states = model(input_ids=ids, use_cache=False, output_hidden_states=True)
        hidden = states.hidden_states[STEERING_LAYER + 1]
        here = owner[ids]
        coming = torch.cat([here[:, 1:], torch.full((len(ids), 1), -1)], dim=1)
        before = torch.where(here < 0, coming, -1)
        for variant, topic_at in enumerate((here, before)):
            on = topic_at >= 0
            sums[variant].index_add_(0, topic_at[on], hidden[on])
            counts[variant].index_add_(0, topic_at[on], torch.ones(int(on.sum()), 1))
    means = sums / counts
    return _unit(means - means.mean(dim=1, keepdim=True))


def padded(rows: list[list[int]], pad: int) -> Tensor:
    """Right-padded ids, [rows, longest row]. Causal attention makes a mask unnecessary on the right."""
    out = torch.full((len(rows), max(map(len, rows))), pad)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row)
    return out
