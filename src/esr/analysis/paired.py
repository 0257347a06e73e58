"""Two conditions compared on the trials they share: the same direction, prompt and seed.

- **difference** and **ratio** of each statistic, treatment against control, over the pairs of which both are
  scored; intervals by a joint cluster bootstrap (one draw of directions for both arms). Where an arm on its
  own is too thin for the bootstrap (see ``uncertainty``), the two arms' intervals are combined instead by the
  method of variance estimates recovery (MOVER: Zou and Donner 2008; on the log scale for ratios), which
  ignores that pairs resemble each other and is therefore too wide rather than too narrow.
- **p**: under the hypothesis that the condition changes nothing, the two arms of a direction may be
  exchanged. All pairs of a direction are exchanged together, because they are not independent. Every one of
  the 2^k exchanges is enumerated when k, the number of directions whose arms differ, is at most
  ``EXACT_CLUSTERS``; else ``draws`` random ones, counting the observed one (so p is never 0). Two-sided:
  |difference| at least the observed one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from esr.analysis.metrics import STATISTICS, Statistic, sums_by_direction
from esr.analysis.trials import checked
from esr.analysis.uncertainty import (
    BOOTSTRAP,
    DRAWS,
    LEVEL,
    UNDEFINED,
    Floats,
    Interval,
    bootstrap_sums,
    divide,
    percentile_interval,
    ratio_interval,
)
from esr.errors import UserError

MOVER = "MOVER from the arms' intervals"
EXACT_CLUSTERS = 13
"""2^13 = 8,192 exchanges are enumerated at most."""

_PAIR = ["direction", "prompt_index", "seed"]
_UNDEFINED = Interval(math.nan, math.nan, UNDEFINED)


def compare_all(
    trials: pd.DataFrame, control: str, *, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> pd.DataFrame:
    """``compare`` of every other condition with ``control``, with ``p_holm``: Holm over all defined p of the
    table.

    Raises UserError when there is no such condition or no other one.
    """
    names = sorted(str(name) for name in trials["condition"].unique())
    others = [name for name in names if name != control]
    if control not in names or not others:
        raise UserError("a comparison needs the control and another condition", f"{control!r} of {names}")
    return compare_pairs(trials, [(name, control) for name in others], seed=seed, draws=draws, level=level)


def compare_pairs(
    trials: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> pd.DataFrame:
    """``compare`` of every (treatment, control) of a family, with ``p_holm``: Holm over all defined p of the table."""
    parts = [compare(trials, one, other, seed=seed, draws=draws, level=level) for one, other in pairs]
    table = pd.concat(parts, ignore_index=True)
    defined = table["p"].notna()
    table["p_holm"] = math.nan
    table.loc[defined, "p_holm"] = holm(table.loc[defined, "p"].tolist())
    return table


def compare(
    trials: pd.DataFrame,
    treatment: str,
    control: str,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> pd.DataFrame:
    """One row per statistic of ``esr.analysis.metrics.STATISTICS``.

    Columns: ``treatment``, ``control``, ``statistic``; ``value_treatment``, ``value_control`` (on the pairs)
    with ``n_treatment``, ``n_control`` (their denominators); ``difference``, ``difference_low``,
    ``difference_high``, ``difference_method``; ``ratio`` with the same three (only of quantities that cannot
    be negative); ``p``, ``p_exact`` (bool: all exchanges enumerated); ``n_pairs`` (both scored),
    ``n_directions`` (of those pairs), ``n_unscored`` (pairs with an unscored arm), ``n_unmatched_treatment``,
    ``n_unmatched_control``; ``note``: why a value is NaN.

    Raises UserError for a condition that is not there, a repeated (direction, prompt_index, seed), or no
    shared trial.
    """
    trials = checked(trials, [])
    arms = [_arm(trials, name) for name in (treatment, control)]
    shared = arms[0].index.intersection(arms[1].index, sort=True)
    if shared.empty:
        raise UserError("compared conditions share trials", f"none of {treatment!r} and {control!r}")
    pairs = [arm.loc[shared] for arm in arms]
    both = pairs[0]["state"].eq("scored") & pairs[1]["state"].eq("scored")
    pairs = _weighted_alike([pair[both].reset_index() for pair in pairs])
    sums = [sums_by_direction(pair, STATISTICS) for pair in pairs]
    counts = {
        "n_pairs": int(both.sum()),
        "n_directions": len(sums[0][0]),
        "n_unscored": int((~both).sum()),
        "n_unmatched_treatment": len(arms[0]) - len(shared),
        "n_unmatched_control": len(arms[1]) - len(shared),
    }
    rows = []
    for i, statistic in enumerate(STATISTICS):
        columns = np.stack([part[:, i] for arm in sums for part in arm], axis=1)
        row = _contrast(columns, statistic, seed=seed, draws=draws, level=level)
        rows.append({"treatment": treatment, "control": control, "statistic": statistic.key} | row | counts)
    return pd.DataFrame(rows)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979), in the order given: max over the smaller ones of (m - rank)
    p, at most 1.

    Raises UserError for a p outside [0, 1], NaN included.
    """
    p = np.asarray(p_values, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise UserError("a p-value lies in [0, 1]", p_values)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def _arm(trials: pd.DataFrame, name: str) -> pd.DataFrame:
    arm = trials[trials["condition"].eq(name)].set_index(_PAIR)
    if arm.empty:
        raise UserError("a compared condition has trials", f"none of {name!r}")
    if arm.index.has_duplicates:
        raise UserError(
            "a condition holds each (direction, prompt_index, seed) once",
            f"{arm.index[arm.index.duplicated()][0]} twice in {name!r}",
        )
    return arm


def _weighted_alike(pairs: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Where a sample was judged, both arms of a pair stand for as many pairs as the rarer arm: sampling is by the place
    in the grid, so a place is sampled in both arms or in neither."""
    if not all("weight" in pair for pair in pairs):
        return pairs
    weight = np.maximum(pairs[0]["weight"].to_numpy(float), pairs[1]["weight"].to_numpy(float))
    return [pair.assign(weight=weight) for pair in pairs]


def _contrast(columns: Floats, statistic: Statistic, *, seed: int, draws: int, level: float) -> dict[str, object]:
    """``columns`` [directions, 4]: treatment's numerator and denominator, then the control's."""
    totals = columns.sum(axis=0)
    values = divide(totals[[0, 2]], totals[[1, 3]])
    difference = ratio = _UNDEFINED
    quotient, p, exact = math.nan, math.nan, False
    if not (totals[1] and totals[3]):
        empty = [name for name, total in zip(("treatment", "control"), totals[[1, 3]], strict=True) if not total]
        note = f"{statistic.undefined} in {' and '.join(empty)}"
    else:
        estimate = _Estimate(columns, values, statistic, seed=seed, draws=draws, level=level)
        difference = estimate.difference()
        p, exact = exchange_p(columns, seed=seed, draws=draws)
        note = ""
        if statistic.bounds[0] < 0:
            note = "no ratio of a quantity that can be negative"
        elif values[1] == 0:
            note = "no ratio to a control of 0"
        else:
            quotient, ratio = float(values[0] / values[1]), estimate.ratio()
    return {
        "value_treatment": float(values[0]),
        "value_control": float(values[1]),
        "n_treatment": round(totals[1]),
        "n_control": round(totals[3]),
        "difference": float(values[0] - values[1]),
        "difference_low": difference.low,
        "difference_high": difference.high,
        "difference_method": difference.method,
        "ratio": quotient,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "ratio_method": ratio.method,
        "p": p,
        "p_exact": exact,
        "note": note,
    }


class _Estimate:
    """The intervals of one contrast whose two arms both have a denominator."""

    def __init__(
        self, columns: Floats, values: Floats, statistic: Statistic, *, seed: int, draws: int, level: float
    ) -> None:
        sampled = bootstrap_sums(columns, seed=seed, draws=draws)
        self.sampled = [divide(sampled[:, k], sampled[:, k + 1]) for k in (0, 2)]
        self.arms = [
            ratio_interval(
                columns[:, k], columns[:, k + 1], seed=seed, level=level,
                bounds=statistic.bounds, draws_of_ratio=self.sampled[k // 2],
            )
            for k in (0, 2)
        ]  # fmt: skip
        self.bootstrap = all(arm.method == BOOTSTRAP for arm in self.arms)
        self.values, self.level = values, level
        self.clusters = int((columns[:, [1, 3]] > 0).sum(axis=0).min())

    def difference(self) -> Interval:
        if self.bootstrap:
            draws = self.sampled[0] - self.sampled[1]
            return Interval(*percentile_interval(draws, self.clusters, self.level), BOOTSTRAP)
        return mover_difference(self.values, self.arms)

    def ratio(self) -> Interval:
        if self.bootstrap:
            return Interval(*percentile_interval(divide(*self.sampled), self.clusters, self.level), BOOTSTRAP)
        return mover_ratio(self.values, self.arms)


def mover_difference(values: Sequence[float] | Floats, arms: Sequence[Interval]) -> Interval:
    """The interval of values[0] - values[1] from the two values' own intervals (Newcombe 1998, his method 10)."""
    (a, b), (x, y) = values, arms
    down, up = math.hypot(a - x.low, y.high - b), math.hypot(x.high - a, b - y.low)
    return Interval(float(a - b - down), float(a - b + up), MOVER)


def mover_ratio(values: Sequence[float] | Floats, arms: Sequence[Interval]) -> Interval:
    """The same for values[0] / values[1] on the log scale; where a lower limit is 0, from the limits' extremes."""
    (a, b), (x, y) = values, arms
    if x.low <= 0 or y.low <= 0:
        return Interval(x.low / y.high, x.high / y.low if y.low > 0 else math.inf, MOVER)
    down = math.hypot(math.log(a / x.low), math.log(y.high / b))
    up = math.hypot(math.log(x.high / a), math.log(b / y.low))
    return Interval(float(a / b) * math.exp(-down), float(a / b) * math.exp(up), MOVER)


def exchange_p(columns: Floats, *, seed: int, draws: int = DRAWS) -> tuple[float, bool]:
    """Two-sided p of the difference of ratios when the arms of whole directions are exchanged, and whether it
    is exact.

    ``columns`` [directions, 4]: treatment's numerators and denominators, then the control's. An exchange that
    leaves an arm without a denominator counts as extreme, which can only make p larger.
    """
    kept, exchanged = columns, columns[:, [2, 3, 0, 1]]
    differing = np.flatnonzero((kept != exchanged).any(axis=1))
    if differing.size == 0:
        return 1.0, True
    observed = abs(_difference(kept.sum(axis=0)[None])[0])
    exact = differing.size <= EXACT_CLUSTERS
    change = (exchanged - kept)[differing]
    extreme = 0
    for flips in _flips(differing.size, exact, seed, draws):
        values = np.abs(_difference(kept.sum(axis=0) + flips @ change))
        extreme += int((np.isnan(values) | (values >= observed * (1 - 1e-9) - 1e-12)).sum())
    return (extreme / 2**differing.size, True) if exact else ((extreme + 1) / (draws + 1), False)


def _flips(clusters: int, exact: bool, seed: int, draws: int) -> Iterable[Floats]:
    if exact:
        yield ((np.arange(2**clusters)[:, None] >> np.arange(clusters)) & 1).astype(np.float64)
        return
    generator = np.random.default_rng(seed)
    chunk = max(1, 4_000_000 // clusters)
    for first in range(0, draws, chunk):
        size = (min(chunk, draws - first), clusters)
        yield generator.integers(0, 2, size=size).astype(np.float64)


def _difference(totals: Floats) -> Floats:
    """Difference of ratios for totals [rows, 4]; NaN where a denominator is 0."""
    ratios = [np.where(totals[:, k + 1] > 0.5, divide(totals[:, k], totals[:, k + 1]), np.nan) for k in (0, 2)]
    return np.asarray(ratios[0] - ratios[1], dtype=np.float64)
