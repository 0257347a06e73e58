"""Matched and mismatched pairs of prompt and response, read: what off-topic detectors are found from.

A *matched* pair is a prompt with a response of its own, a *mismatched* pair the same prompt with the response of
another, so that both arms hold the same prompts and the same responses and differ only in how they are put together.
The subject reads a pair with the response as if it were its own, and each latent's activations over the pair's tokens
are pooled into one number (arXiv 2602.06941: the largest).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from esr.errors import UserError

if TYPE_CHECKING:
    from esr.steering.engine import Engine, Request
    from esr.subjects.latents import Activity, Pool

Values = NDArray[np.float32]
"""Pooled activations, shape [pairs, latents]."""
Over = Literal["response", "all"]


@dataclass(frozen=True)
class Pairs:
    """n matched and n mismatched pairs, of which the i-th of either kind has the same prompt."""

    prompts: tuple[str, ...]
    other: NDArray[np.int64]
    """The i-th mismatched pair has the other[i]-th response, [n]."""
    matched: Values
    mismatched: Values
    activity: Activity
    """Over the tokens of all matched pairs."""


def canonical(prompt: str) -> str:
    """What two prompts share that are equal but for letter case and white space."""
    return " ".join(prompt.split()).casefold()


def can_be_deranged(prompts: Sequence[str]) -> bool:
    """Whether each response can be paired with another prompt's: no prompt has more than half of them."""
    keys = [canonical(prompt) for prompt in prompts]
    return len(keys) > 1 and 2 * Counter(keys).most_common(1)[0][1] <= len(keys)


def derange(prompts: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    """Whose response each prompt is paired with instead of its own: a permutation s of 0..n-1, shape [n].

    ``prompts``: the prompt of each response; a prompt may have several. prompts[s[i]] never equals prompts[i] (see
    ``canonical``). Begins with a rotation of the responses sorted by prompt, which is valid whenever any permutation
    is, then exchanges random pairs where both stay valid.

    Raises UserError when one prompt has more than half of the responses.
    """
    if not can_be_deranged(prompts):
        raise UserError(
            "at most half of the responses belong to one prompt, so that each can be paired with another prompt's",
            f"{len(set(map(canonical, prompts)))} prompts with {len(prompts)} responses",
            "Use more prompts",
        )
    _, of = np.unique([canonical(prompt) for prompt in prompts], return_inverse=True)
    most = int(np.bincount(of).max())
    order = rng.permutation(len(of))
    order = order[np.argsort(of[order], kind="stable")]
    other = np.empty(len(of), dtype=np.int64)
    other[order] = np.roll(order, -most)
    for i, j in rng.integers(len(of), size=(20 * len(of), 2)):
        if of[other[j]] != of[i] and of[other[i]] != of[j]:
            other[i], other[j] = other[j], other[i]
    return other


def span(request: Request, over: Over) -> tuple[Request, int, int]:
    """The request and the tokens to read: those of its prefill, or all."""
    end = len(request.prompt_ids) + len(request.prefill_ids)
    return request, end - len(request.prefill_ids) if over == "response" else 0, end


def read_pairs(
    engine: Engine,
    prompts: Sequence[str],
    requests: Sequence[Request],
    rng: np.random.Generator,
    pool: Pool = "max",
    over: Over = "response",
) -> Pairs:
    """Pair responses by ``derange`` and read all pairs.

    ``requests``: for each of ``prompts``, its tokens and a response to it as prefill, not empty. Bounded memory: the
    pooled values lie in a temporary file, which the system removes when they are dropped.
    """
    other = derange(prompts, rng)
    mismatched = [replace(r, prefill_ids=requests[j].prefill_ids) for r, j in zip(requests, other, strict=True)]
    values, activity = _read(engine, requests, pool, over)
    return Pairs(tuple(prompts), other, values, _read(engine, mismatched, pool, over)[0], activity)


def together(pairs: Pairs, latents: Sequence[int], scale: NDArray[np.float64]) -> Pairs:
    """The same pairs with one value each: the mean over ``latents`` of the value in units of ``scale``, one for each of
    them and above 0."""
    one, two = (
        (values[:, list(latents)] / scale).mean(axis=1, keepdims=True).astype(np.float32)
        for values in (pairs.matched, pairs.mismatched)
    )
    return replace(pairs, matched=one, mismatched=two)


def total_activity(engine: Engine, requests: Iterable[Request], over: Over = "response") -> Activity:
    """What every latent does over all tokens of the requests' prefills, or all tokens. One request at least."""
    return reduce(add, engine.activity(span(r, over) for r in requests))  # never more than two in memory


def _read(engine: Engine, requests: Sequence[Request], pool: Pool, over: Over) -> tuple[Values, Activity]:
    read = engine.activity(span(r, over) for r in requests)
    total = next(read)
    values = _on_disk(len(requests), len(total.maximum))
    values[0] = total.pooled(pool)
    for i, activity in enumerate(read, start=1):
        values[i] = activity.pooled(pool)
        total = total + activity
    return values, total


def _on_disk(pairs: int, latents: int) -> Values:
    """1,000 pairs of a dictionary of 65,536 would take 260 MB of memory."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=(pairs, latents))
