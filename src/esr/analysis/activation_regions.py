"""The mean activation of latents and groups in each region of a response, with clustered intervals.

Everything is computed from the mean of each region of each response, so that a long response counts as much as a short
one. A group's activation is the mean over its latents. Intervals are clustered by direction and follow the rule of
``esr.analysis.uncertainty``: a cluster bootstrap, or, where fewer than ``MIN_CLUSTERS`` directions are active, the one
for a mean bounded by 0 and the largest that any response reached in that region, which is wide on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.analysis.activations import KINDS, SPANS, WHOLE, Activations, Kind
from esr.analysis.paired import Contrast
from esr.analysis.uncertainty import DRAWS, LEVEL, UNDEFINED, Floats, Interval, bootstrap_sums, divide, ratio_interval

NO_INTERVAL = Interval(math.nan, math.nan, UNDEFINED)
NEVER_ACTIVE = "never active in this region"


def region_table(activations: Activations, *, seed: int = 0, draws: int = DRAWS, level: float = LEVEL) -> pd.DataFrame:
    """One row per latent and per group, span (``SPANS``) and kind (``KINDS``).

    Columns: ``unit`` ("latent" or "group"), ``name``, ``region``, ``kind``; ``mean`` over responses of the region's
    mean activation, with ``low``, ``high`` and ``method``; ``n`` (readings with tokens in the region) of
    ``n_directions``, ``n_empty`` (readings without), ``n_tokens``; ``baseline`` (mean of the unsteered responses over
    all their tokens) with ``n_baseline``; ``ratio`` of mean to baseline with ``ratio_low``, ``ratio_high``,
    ``ratio_method``; ``note``: why a value is NaN. A response that is matched to several episodes counts
    once for each of them.
    """
    resampling = Resampling.of(activations, seed=seed, draws=draws, level=level)
    means = activations.region_means()
    largest = largest_means(means)
    kinds = np.array([r.kind for r in activations.readings])
    codes = resampling.codes([r.direction for r in activations.readings])
    lengths = np.array([[s.stop - s.start for s in r.spans().values()] for r in activations.readings])

    arms: dict[tuple[str, Kind], Arm] = {}
    counts: dict[tuple[str, Kind], dict[str, int]] = {}
    for span, region in enumerate(SPANS):
        for kind in KINDS:
            chosen = (kinds == kind) & (lengths[:, span] > 0)
            arms[region, kind] = arm = Arm(means[chosen, span], codes[chosen], largest[span], resampling)
            counts[region, kind] = {
                "n": arm.n,
                "n_directions": arm.n_directions,
                "n_empty": int((kinds == kind).sum()) - arm.n,
                "n_tokens": int(lengths[chosen, span].sum()),
            }
    baseline = arms[WHOLE, "unsteered"]
    rows = []
    for u, (unit, name) in enumerate(activations.units):
        for (region, kind), arm in arms.items():
            own = arm.interval(u, resampling)
            quotient, interval, note = ratio(arm, baseline, u, resampling)
            if own.method == UNDEFINED:
                note = NEVER_ACTIVE if arm.n else f"no {kind} responses with tokens in this region"
            rows.append(
                {"unit": unit, "name": name, "region": region, "kind": kind}
                | {"mean": float(arm.mean[u]), "low": own.low, "high": own.high, "method": own.method}
                | counts[region, kind]
                | {"baseline": float(baseline.mean[u]), "n_baseline": baseline.n, "ratio": quotient}
                | {"ratio_low": interval.low, "ratio_high": interval.high, "ratio_method": interval.method}
                | {"note": note}
            )
    return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False)
class Resampling:
    """Directions drawn with replacement, the same draws for every statistic of a table."""

    directions: tuple[str, ...]
    weights: Floats
    """[draws, directions]: how often each direction was taken."""
    seed: int
    level: float

    @classmethod
    def of(cls, activations: Activations, *, seed: int, draws: int, level: float) -> Resampling:
        """The draws for all directions of the readings."""
        directions = tuple(sorted({r.direction for r in activations.readings}))
        return cls(directions, bootstrap_sums(np.eye(len(directions)), seed=seed, draws=draws), seed, level)

    def codes(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Positions of directions in ``directions``."""
        position = {name: i for i, name in enumerate(self.directions)}
        return np.array([position[name] for name in names], dtype=np.int64)

    def sums(self, values: Floats, codes: NDArray[np.int64]) -> Floats:
        """Sums of ``values`` [n, ...] per direction: [directions, ...]."""
        totals = np.zeros((len(self.directions), *values.shape[1:]))
        np.add.at(totals, codes, values)
        return totals


class Arm:
    """The means of all units over one set of region means, with their bootstrap."""

    n: int
    """Region means that went in."""
    n_directions: int
    sums: Floats
    """[directions, units]."""
    counts: Floats
    """[directions]."""
    mean: Floats
    """[units]; NaN for n = 0."""
    largest: Floats
    """[units]: what one region mean can be."""
    sampled: Floats
    """[draws, units]: bootstrapped ``sums`` over all directions."""
    sampled_counts: Floats
    """[draws]."""

    def __init__(self, values: Floats, codes: NDArray[np.int64], largest: Floats, resampling: Resampling) -> None:
        """``values`` [n, units] with the directions ``codes`` [n]."""
        self.n, self.n_directions, self.largest = len(values), len(np.unique(codes)), largest
        self.sums, self.counts = resampling.sums(values, codes), resampling.sums(np.ones(len(values)), codes)
        self.mean = divide(self.sums.sum(axis=0), self.counts.sum())
        self.sampled = resampling.weights @ self.sums
        self.sampled_counts = resampling.weights @ self.counts

    def interval(self, unit: int, resampling: Resampling) -> Interval:
        """Of one unit's mean; undefined where it was never active or n = 0."""
        largest = float(self.largest[unit])
        if not (self.n and largest > 0):
            return NO_INTERVAL
        return ratio_interval(
            self.sums[:, unit], self.counts, seed=resampling.seed, level=resampling.level, bounds=(0.0, largest),
            draws_of_ratio=divide(self.sampled[:, unit], self.sampled_counts),
        )  # fmt: skip


def contrast(above: Arm, below: Arm, unit: int, resampling: Resampling) -> Contrast | str:
    """Two arms' means of one unit side by side, or why they cannot be compared."""
    if not (above.n and below.n):
        return "nothing to compare: no responses on one side"
    if not (above.largest[unit] > 0 and below.largest[unit] > 0):
        return NEVER_ACTIVE
    columns = [part for arm in (above, below) for part in (arm.sums[:, unit], arm.counts)]
    sampled = [part for arm in (above, below) for part in (arm.sampled[:, unit], arm.sampled_counts)]
    bounds = (0.0, float(max(above.largest[unit], below.largest[unit])))
    return Contrast(np.stack(columns, axis=1), None, np.stack(sampled, axis=1), bounds, resampling.seed)


def ratio(above: Arm, below: Arm, unit: int, resampling: Resampling) -> tuple[float, Interval, str]:
    """The ratio of two arms' means of one unit, its interval, and why it is undefined (NaN) where it is."""
    if above is below:
        return math.nan, NO_INTERVAL, "the baseline itself"
    both = contrast(above, below, unit, resampling)
    if isinstance(both, str):
        return math.nan, NO_INTERVAL, both
    if below.mean[unit] == 0:
        return math.nan, NO_INTERVAL, "no ratio to a mean of 0"
    return float(above.mean[unit] / below.mean[unit]), both.ratio(resampling.level), ""


def largest_means(means: Floats) -> Floats:
    """[spans, units]: the largest of ``region_means`` over all readings; 0 where no reading has the span."""
    return np.asarray(np.max(means, axis=0, initial=0.0, where=~np.isnan(means)))
