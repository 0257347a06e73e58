"""The headline quantities per condition (METHOD section 1): rates, means, their intervals and every count
beside them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.stats import norm

from esr.analysis.trials import checked
from esr.analysis.uncertainty import (
    DRAWS,
    LEVEL,
    UNDEFINED,
    Clusters,
    Floats,
    bootstrap_sums,
    divide,
    ratio_interval,
    wilson,
    wilson_effective,
)
from esr.errors import UserError


@dataclass(frozen=True)
class Statistic:
    """A ratio of two sums over trials: sum of ``column`` over the trials of ``over``, divided by their
    number. Where only a sample was judged, both sums are weighted by how many responses a trial stands for.
    """

    key: str
    title: str
    column: str
    over: Literal["scored", "multi_attempt"]
    bounds: tuple[float, float] = (0.0, 1.0)
    """Range of one trial's value: (0, 1) for an event."""

    @property
    def is_rate(self) -> bool:
        """Whether it counts events (and so has a Wilson interval)."""
        return self.bounds == (0.0, 1.0)

    @property
    def undefined(self) -> str:
        """Why there is no value when the denominator is 0."""
        return "no scored responses" if self.over == "scored" else "no multi-attempt responses"

    def terms(self, trials: pd.DataFrame) -> tuple[Floats, Floats]:
        """Numerator and denominator of every trial, each of shape [trials]; weighted where trials have weights."""
        counted = trials["state"].eq("scored").to_numpy(bool)
        if self.over == "multi_attempt":
            counted = counted & trials["multi_attempt"].to_numpy(bool)
        values = trials[self.column].astype(float).to_numpy()
        weights = trials["weight"].to_numpy(np.float64) if "weight" in trials else np.ones(len(trials))
        return np.where(counted, weights * values, 0.0), np.where(counted, weights, 0.0)


STATISTICS: tuple[Statistic, ...] = (
    Statistic("multi_attempt_rate", "Multi-attempt rate", "multi_attempt", "scored"),
    Statistic("improvement_rate", "Improvement rate", "improved", "multi_attempt"),
    Statistic("esr_rate", "ESR rate", "improved", "scored"),
    Statistic("mean_improvement", "Mean score improvement", "improvement", "multi_attempt", (-100.0, 100.0)),
    Statistic("mean_first_score", "Mean first score", "first_score", "scored", (0.0, 100.0)),
)
SUBSETS: dict[str, str] = {"": "", "_without_degraded": "degraded", "_without_promoted": "promoted"}
"""Suffix of a statistic's columns -> the flag whose trials are left out."""


def statistic_named(key: str) -> Statistic:
    """The statistic of that key; UserError names the known ones."""
    known = {statistic.key: statistic for statistic in STATISTICS}
    if key not in known:
        raise UserError(f"a statistic is one of {', '.join(known)}", repr(key))
    return known[key]


def summarise(
    trials: pd.DataFrame,
    *,
    clusters: Clusters = "direction",
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> pd.DataFrame:
    """One row per condition, sorted by name; ``trials`` has the columns of ``esr.analysis.trials.COLUMNS``.

    Counts: ``n_trials``, ``n_scored``, ``n_unscored``, ``unscored_reasons`` (dict reason -> count),
    ``n_degraded`` (of all trials), ``n_directions``, ``n_promoted_directions``, ``n_prompts``,
    ``n_multi_attempt``, ``n_unannounced`` (scored, more than one attempt, but no explicit restart: never part
    of ESR).

    For each statistic S (multi_attempt_rate, improvement_rate, esr_rate, mean_improvement, mean_first_score),
    and again with the suffixes ``_without_degraded`` and ``_without_promoted``: ``S`` (rates in 0..1, means
    in score points), ``S_numerator``, ``S_denominator``, ``S_low`` and ``S_high`` (clustered by direction, or
    by direction and prompt: ``clusters``), ``S_interval_method``, ``S_note`` and, for rates, ``S_wilson_low``
    and ``S_wilson_high`` (trials taken as independent). A statistic with denominator 0 is NaN, its method is
    "undefined" and its note says why.

    Every condition is bootstrapped from ``seed`` afresh, so its numbers depend neither on the other
    conditions nor on the order of the rows. Raises UserError as ``checked`` does, and for other ``clusters``.
    """
    trials = checked(trials, ["degraded", "promoted", "n_attempts", "reason"])
    rows = [
        {"condition": str(name)} | _counts(part) | _statistics(part, clusters, seed=seed, draws=draws, level=level)
        for name, part in trials.groupby("condition", sort=True)
    ]
    return pd.DataFrame(rows)


def _counts(trials: pd.DataFrame) -> dict[str, object]:
    scored = trials["state"].eq("scored")
    multi = trials["multi_attempt"].astype(bool)
    reasons = Counter(str(reason) for reason in trials.loc[~scored, "reason"])
    return {
        "n_trials": len(trials),
        "n_scored": int(scored.sum()),
        "n_unscored": int((~scored).sum()),
        "unscored_reasons": dict(sorted(reasons.items())),
        "n_degraded": int(trials["degraded"].astype(bool).sum()),
        "n_directions": int(trials["direction"].nunique()),
        "n_promoted_directions": int(trials.loc[trials["promoted"].astype(bool), "direction"].nunique()),
        "n_prompts": int(trials["prompt_index"].nunique()),
        "n_multi_attempt": int(multi.sum()),
        "n_unannounced": int((scored & ~multi & trials["n_attempts"].astype(float).gt(1)).sum()),
    }


def _statistics(trials: pd.DataFrame, clusters: Clusters, *, seed: int, draws: int, level: float) -> dict[str, object]:
    row: dict[str, object] = {}
    for suffix, flag in SUBSETS.items():
        part = trials[~trials[flag].astype(bool)] if flag else trials
        numerators, denominators = Clustering([part], clusters).terms(STATISTICS)
        ratios = np.empty((draws, 0))
        if len(part):
            sampled = bootstrap_sums(np.concatenate([numerators, denominators], axis=-1), seed=seed, draws=draws)
            ratios = divide(sampled[:, : len(STATISTICS)], sampled[:, len(STATISTICS) :])
        for i, statistic in enumerate(STATISTICS):
            key = statistic.key + suffix
            numerator, denominator = float(numerators[..., i].sum()), float(denominators[..., i].sum())
            row[key] = numerator / denominator if denominator else math.nan
            row[f"{key}_numerator"] = round(numerator) if statistic.is_rate else numerator
            row[f"{key}_denominator"] = round(denominator)
            row[f"{key}_note"] = "" if denominator else statistic.undefined
            if denominator:
                interval = ratio_interval(
                    numerators[..., i], denominators[..., i], seed=seed, draws=draws, level=level,
                    bounds=statistic.bounds, draws_of_ratio=ratios[:, i],
                )  # fmt: skip
                row[f"{key}_low"], row[f"{key}_high"] = interval.low, interval.high
                row[f"{key}_interval_method"] = interval.method
            else:
                row[f"{key}_low"], row[f"{key}_high"] = math.nan, math.nan
                row[f"{key}_interval_method"] = UNDEFINED
            if statistic.is_rate:
                rate = numerator / denominator if denominator else math.nan
                row[f"{key}_wilson_low"], row[f"{key}_wilson_high"] = _wilson(part, statistic, rate, level)
    return row


def _wilson(trials: pd.DataFrame, statistic: Statistic, rate: float, level: float) -> tuple[float, float]:
    """Wilson's interval as if trials were independent; with weights, on Kish's effective number (sum w)^2 / sum w^2."""
    above, below = statistic.terms(trials)
    if "weight" not in trials or trials["weight"].eq(1).all():
        return wilson(round(above.sum()), round(below.sum()), level)
    if not below.any():
        return math.nan, math.nan
    effective = below.sum() ** 2 / (below**2).sum()
    return wilson_effective(rate, effective, float(norm.ppf((1 + level) / 2)))


class Clustering:
    """The clusters of the trials of one or more frames: per direction, or per direction and prompt.

    Sums over trials become vectors [directions] or tables [directions, prompts], in sorted order. The frames share
    them: a direction that one of them lacks has sums of 0 there. Raises UserError for clusters it does not know.
    """

    def __init__(self, frames: Sequence[pd.DataFrame], clusters: Clusters) -> None:
        if clusters not in get_args(Clusters):
            raise UserError(f"the clusters are {' or '.join(map(repr, get_args(Clusters)))}", repr(clusters))
        self.frames = tuple(frames)
        self.names: tuple[list[object], ...] = ()
        codes = np.zeros(sum(map(len, frames)), dtype=np.int64)
        for column in ["direction"] if clusters == "direction" else ["direction", "prompt_index"]:
            own, names = pd.factorize(pd.concat([frame[column] for frame in frames], ignore_index=True), sort=True)
            codes = codes * len(names) + own
            self.names += (list(names),)
        self._codes = np.split(codes, np.cumsum([len(frame) for frame in frames])[:-1])

    def sums(self, values: Floats, frame: int = 0) -> Floats:
        """Sums per cluster of ``values`` [trials of that frame]."""
        shape = tuple(map(len, self.names))
        sums = np.bincount(self._codes[frame], weights=values, minlength=math.prod(shape))
        return sums.reshape(shape).astype(np.float64)

    def terms(self, statistics: Sequence[Statistic], frame: int = 0) -> tuple[Floats, Floats]:
        """Numerators and denominators per cluster, each [directions, (prompts,) statistics]."""
        terms = [statistic.terms(self.frames[frame]) for statistic in statistics]
        above, below = ([self.sums(term[k], frame) for term in terms] for k in (0, 1))
        return np.stack(above, axis=-1), np.stack(below, axis=-1)
