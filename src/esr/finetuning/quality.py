"""Did fine-tuning cost ordinary answers anything? Perplexity of held-out ones, with the adapter against without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from esr.analysis.uncertainty import DRAWS, LEVEL, bootstrap_sums, percentile_interval
from esr.errors import UserError
from esr.finetuning.examples import Example


@dataclass(frozen=True)
class AnswerLosses:
    """Cross-entropy of a subject on given answers; each has shape [answers]."""

    prompts: tuple[str, ...]
    nats: tuple[float, ...]
    """Summed over the answer's tokens, its end token included where it ends."""
    tokens: tuple[int, ...]

    @property
    def perplexity(self) -> float:
        """exp of the mean nats per token."""
        return math.exp(sum(self.nats) / sum(self.tokens))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"prompts": list(self.prompts), "nats": list(self.nats), "tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> AnswerLosses:
        """The inverse of ``to_json``."""
        return cls(tuple(data["prompts"]), tuple(data["nats"]), tuple(data["tokens"]))


def answer_losses(subject: Any, answers: Sequence[Example]) -> AnswerLosses:
    """Teacher-force each answer, unsteered; ``subject``: a loaded ``esr.subjects.loading.Subject``."""
    import torch

    from esr.finetuning.masking import Encoder
    from esr.finetuning.training import summed_loss

    if not answers:
        raise UserError("perplexity is taken over at least one held-out ordinary answer", "none")
    encoder = Encoder(subject)
    encoded = [encoder.encode(answer) for answer in answers]
    with torch.no_grad():
        nats = [float(summed_loss(subject.model, [e], subject.device)) for e in encoded]
    return AnswerLosses(tuple(a.prompt for a in answers), tuple(nats), tuple(e.learned for e in encoded))


@dataclass(frozen=True)
class PerplexityChange:
    """Perplexity with the adapter over perplexity without, on the same answers."""

    base: float
    tuned: float
    ratio: float
    low: float
    high: float
    """95 % interval of the ratio: bootstrap over prompts (Hesterberg's expanded percentiles). NaN for one prompt."""
    n_answers: int
    n_prompts: int


def perplexity_change(
    base: AnswerLosses, tuned: AnswerLosses, *, seed: int, draws: int = DRAWS, level: float = LEVEL
) -> PerplexityChange:
    """Compare the two on the answers they share. Raises UserError when they do not have the same answers."""
    if base.prompts != tuned.prompts or base.tokens != tuned.tokens:
        raise UserError("perplexities are compared on the same answers", "two different sets")
    _, codes = np.unique(np.array(base.prompts, dtype=object), return_inverse=True)
    change = np.array(tuned.nats) - np.array(base.nats)
    sums = np.stack([np.bincount(codes, change), np.bincount(codes, np.array(base.tokens, float))], axis=1).astype(
        np.float64
    )
    sampled = bootstrap_sums(sums, seed=seed, draws=draws)
    low, high = percentile_interval(sampled[:, 0] / sampled[:, 1], len(sums), level)
    ratio = math.exp(sums[:, 0].sum() / sums[:, 1].sum())
    return PerplexityChange(
        base.perplexity, tuned.perplexity, ratio, math.exp(low), math.exp(high), len(base.nats), len(sums)
    )
