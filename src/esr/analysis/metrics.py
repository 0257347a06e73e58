"""The headline quantities per condition (METHOD section 1): rates, means, their intervals and every count
beside them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import norm

from esr.analysis.trials import checked
from esr.analysis.uncertainty import (
    DRAWS,
    LEVEL,
    UNDEFINED,
    Floats,
    bootstrap_sums,
    divide,
    ratio_interval,
    wilson,
    wilson_effective,
)


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


def summarise(trials: pd.DataFrame, *, seed: int = 0, draws: int = DRAWS, level: float = LEVEL) -> pd.DataFrame:
    """One row per condition, sorted by name; ``trials`` has the columns of ``esr.analysis.trials.COLUMNS``.

    Counts: ``n_trials``, ``n_scored``, ``n_unscored``, ``unscored_reasons`` (dict reason -> count),
    ``n_degraded`` (of all trials), ``n_directions``, ``n_promoted_directions``, ``n_prompts``,
    ``n_multi_attempt``, ``n_unannounced`` (scored, more than one attempt, but no explicit restart: never part
    of ESR).

    For each statistic S (multi_attempt_rate, improvement_rate, esr_rate, mean_improvement, mean_first_score),
    and again with the suffixes ``_without_degraded`` and ``_without_promoted``: ``S`` (rates in 0..1, means
    in score points), ``S_numerator``, ``S_denominator``, ``S_low`` and ``S_high`` (clustered by direction),
    ``S_interval_method``, ``S_note`` and, for rates, ``S_wilson_low`` and ``S_wilson_high`` (trials taken as
    independent). A statistic with denominator 0 is NaN, its method is "undefined" and its note says why.

    Every condition is bootstrapped from ``seed`` afresh, so its numbers depend neither on the other
    conditions nor on the order of the rows. Raises UserError as ``checked`` does.
    """
    trials = checked(trials, ["degraded", "promoted", "n_attempts", "reason"])
    rows = [
        {"condition": str(name)} | _counts(part) | _statistics(part, seed=seed, draws=draws, level=level)
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


def _statistics(trials: pd.DataFrame, *, seed: int, draws: int, level: float) -> dict[str, object]:
    row: dict[str, object] = {}
    for suffix, flag in SUBSETS.items():
        part = trials[~trials[flag].astype(bool)] if flag else trials
        numerators, denominators = sums_by_direction(part, STATISTICS)
        ratios = np.empty((draws, 0))
        if len(numerators):
            sampled = bootstrap_sums(np.hstack([numerators, denominators]), seed=seed, draws=draws)
            ratios = divide(sampled[:, : len(STATISTICS)], sampled[:, len(STATISTICS) :])
        for i, statistic in enumerate(STATISTICS):
            key = statistic.key + suffix
            numerator, denominator = float(numerators[:, i].sum()), float(denominators[:, i].sum())
            row[key] = numerator / denominator if denominator else math.nan
            row[f"{key}_numerator"] = round(numerator) if statistic.is_rate else numerator
            row[f"{key}_denominator"] = round(denominator)
            row[f"{key}_note"] = "" if denominator else statistic.undefined
            if denominator:
                interval = ratio_interval(
                    numerators[:, i], denominators[:, i], seed=seed, draws=draws, level=level,
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


def sums_by_direction(trials: pd.DataFrame, statistics: tuple[Statistic, ...]) -> tuple[Floats, Floats]:
    """Sums of numerators and denominators per direction, each [directions, statistics], directions sorted by
    id.
    """
    codes, directions = pd.factorize(trials["direction"], sort=True)
    shape = (len(directions), len(statistics))
    numerators, denominators = np.zeros(shape), np.zeros(shape)
    for i, statistic in enumerate(statistics):
        above, below = statistic.terms(trials)
        numerators[:, i] = np.bincount(codes, weights=above, minlength=len(directions))
        denominators[:, i] = np.bincount(codes, weights=below, minlength=len(directions))
    return numerators, denominators
