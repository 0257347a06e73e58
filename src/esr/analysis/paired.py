"""Two conditions compared on the trials they share: the same direction, prompt and seed.

- **difference** and **ratio** of each statistic, treatment against control, over the pairs of which both are
  scored; intervals by a joint cluster bootstrap (one draw of directions, and of prompts where they are clusters, for
  both arms). Where an arm on its own is too thin for the bootstrap (see ``uncertainty``), the two arms' intervals are
  combined instead by the method of variance estimates recovery (MOVER: Zou and Donner 2008; on the log scale for
  ratios), which ignores that pairs resemble each other and is therefore too wide rather than too narrow. Where both
  arms are rich but hardly a direction differs between them, the bootstrap would know no change it has not seen. So with
  fewer than ``MIN_CLUSTERS`` differing directions the difference is that of two rates, the pairs' gains and their
  losses, each with its own interval, combined by MOVER.
- **p**: under the hypothesis that the condition changes nothing, the two arms of a direction may be
  exchanged, whatever its prompts have in common. All pairs of a direction are exchanged together, because they are not
  independent: where all are scored, this flips the sign of the direction's summed difference. Every one of
  the 2^k exchanges is enumerated when k, the number of directions whose arms differ, is at most
  ``EXACT_CLUSTERS``; else ``draws`` random ones, counting the observed one (so p is never 0). Two-sided:
  |difference| at least the observed one.
- **p of what is counted over multi-attempt responses**: the two arms restart in different trials, so exchanging them
  also mixes how often they restart, and the p reacts to that (simulated, 40 directions x 5 prompts, the same
  improvement rate at 60 and 10 % multi-attempt: 20 to 23 % of the p below .05). There p is 1 - the highest level at
  which the interval of the difference leaves 0 out (``benchmarks/tests_over_restarts.py``: 0 to 6 %). With fewer than
  ``MIN_EVENTS`` such responses in an arm it is NaN: cannot be tested.
- **without pairs** (conditions over different parts of the grid) the arms have only directions in common, and need not
  even have those: one draw over the union of their directions. Their sizes may differ, so exchanging them would not
  keep the scatter of the difference; p is 1 - the highest level at which the interval of the difference leaves 0 out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from esr.analysis.metrics import STATISTICS, Clustering, Statistic
from esr.analysis.trials import checked
from esr.analysis.uncertainty import (
    BOOTSTRAPS,
    DRAWS,
    LEVEL,
    MIN_CLUSTERS,
    UNDEFINED,
    Clusters,
    Floats,
    Interval,
    bootstrap_sums,
    divide,
    percentile_interval,
    ratio_interval,
)
from esr.errors import UserError

MOVER = "MOVER from the arms' intervals"
MOVER_CHANGES = "MOVER from the intervals of gains and losses"
EXACT_CLUSTERS = 13
"""2^13 = 8,192 exchanges are enumerated at most."""
MIN_EVENTS = 10
"""Multi-attempt responses that each arm needs before what is counted over them is tested."""

_PAIR = ["direction", "prompt_index", "seed"]
_UNDEFINED = Interval(math.nan, math.nan, UNDEFINED)


def compare_all(
    trials: pd.DataFrame,
    control: str,
    *,
    clusters: Clusters = "direction",
    paired: bool | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> pd.DataFrame:
    """``compare`` of every other condition with ``control``, with ``p_holm``: Holm over all defined p of the
    table.

    Raises UserError when there is no such condition or no other one.
    """
    names = sorted(str(name) for name in trials["condition"].unique())
    others = [(name, control) for name in names if name != control]
    if control not in names or not others:
        raise UserError("a comparison needs the control and another condition", f"{control!r} of {names}")
    return compare_pairs(trials, others, clusters=clusters, paired=paired, seed=seed, draws=draws, level=level)


def compare_pairs(
    trials: pd.DataFrame,
    conditions: Sequence[tuple[str, str]],
    *,
    clusters: Clusters = "direction",
    paired: bool | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> pd.DataFrame:
    """``compare`` of each (treatment, control), in the order given, with ``p_holm``: Holm over all defined p of the
    table. Raises UserError when there is nothing to compare.
    """
    if not conditions:
        raise UserError("a family of comparisons has at least one", "none")
    trials = checked(trials, [])
    rows = []
    for treatment, control in conditions:
        arms = match(trials, treatment, control, paired)
        rows += _rows(arms, clusters, seed=seed, draws=draws, level=level)
    table = pd.DataFrame(rows)
    defined = table["p"].notna()
    table["p_holm"] = math.nan
    table.loc[defined, "p_holm"] = holm(table.loc[defined, "p"].tolist())
    return table


def compare(
    trials: pd.DataFrame,
    treatment: str,
    control: str,
    *,
    clusters: Clusters = "direction",
    paired: bool | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> pd.DataFrame:
    """One row per statistic of ``esr.analysis.metrics.STATISTICS``.

    ``clusters``: what intervals take as alike, directions or directions and prompts (see ``uncertainty``).
    ``paired``: None pairs the conditions when they share a trial, and otherwise compares them by their directions only;
    True insists on pairs, False ignores them.

    Columns: ``treatment``, ``control``, ``statistic``; ``value_treatment``, ``value_control`` (on the pairs)
    with ``n_treatment``, ``n_control`` (their denominators); ``difference``, ``difference_low``,
    ``difference_high``, ``difference_method``; ``ratio`` with the same three (only of quantities that cannot
    be negative); ``p``, ``p_exact`` (bool: all exchanges enumerated); ``note``: why a value is NaN; ``paired``
    (bool); ``n_pairs`` (both scored), ``n_directions`` (of those pairs), ``n_unscored`` (pairs with an unscored
    arm), ``n_unmatched_treatment``, ``n_unmatched_control``. Without pairs the values are those of all scored
    trials, ``n_pairs`` is 0, ``n_directions`` counts those of either arm, ``n_unscored`` counts trials, and all
    trials are unmatched.

    Raises UserError for a condition that is not there, a repeated (direction, prompt_index, seed), or no
    shared trial where pairs are asked for.
    """
    arms = match(checked(trials, []), treatment, control, paired)
    return pd.DataFrame(_rows(arms, clusters, seed=seed, draws=draws, level=level))


@dataclass(frozen=True)
class Arms:
    """The scored trials of two conditions; when ``paired``, row i of one is the partner of row i of the other."""

    treatment: str
    control: str
    frames: tuple[pd.DataFrame, pd.DataFrame]
    """The treatment's and the control's trials."""
    paired: bool
    n_unscored: int
    n_unmatched: tuple[int, int]
    """Trials without a partner, of the treatment and of the control."""


def match(trials: pd.DataFrame, treatment: str, control: str, paired: bool | None = None) -> Arms:
    """The arms of ``compare``, from checked trials; the same errors."""
    arms = [_arm(trials, name) for name in (treatment, control)]
    shared = arms[0].index.intersection(arms[1].index, sort=True)
    if paired and shared.empty:
        raise UserError(
            "paired conditions share trials",
            f"none of {treatment!r} and {control!r}",
            "Compare them without pairs (paired=False)",
        )
    if paired is False or shared.empty:
        scored = [arm[arm["state"].eq("scored")].reset_index() for arm in arms]
        unscored = sum(map(len, arms)) - sum(map(len, scored))
        return Arms(treatment, control, (scored[0], scored[1]), False, unscored, (len(arms[0]), len(arms[1])))
    pairs = [arm.loc[shared] for arm in arms]
    both = pairs[0]["state"].eq("scored") & pairs[1]["state"].eq("scored")
    first, second = _weighted_alike([pair[both].reset_index() for pair in pairs])
    unmatched = (len(arms[0]) - len(shared), len(arms[1]) - len(shared))
    return Arms(treatment, control, (first, second), True, int((~both).sum()), unmatched)


def _rows(arms: Arms, clusters: Clusters, *, seed: int, draws: int, level: float) -> list[dict[str, object]]:
    clustering = Clustering(arms.frames, clusters)
    sums = [part for arm in (0, 1) for part in clustering.terms(STATISTICS, arm)]
    columns = np.stack(sums, axis=-1)  # [directions, (prompts,) statistics, 4]
    sampled = np.full((draws, len(STATISTICS), 4), math.nan)
    if all(map(len, arms.frames)):
        flat = columns.reshape(*columns.shape[:-2], -1)
        sampled = bootstrap_sums(flat, seed=seed, draws=draws).reshape(sampled.shape)
    counts = {
        "paired": arms.paired,
        "n_pairs": len(arms.frames[0]) if arms.paired else 0,
        "n_directions": len(clustering.names[0]),
        "n_unscored": arms.n_unscored,
        "n_unmatched_treatment": arms.n_unmatched[0],
        "n_unmatched_control": arms.n_unmatched[1],
    }
    rows = []
    for i, statistic in enumerate(STATISTICS):
        changes = _changes(arms, clustering, statistic)
        contrast = Contrast(columns[..., i, :], changes, sampled[:, i], statistic.bounds, seed)
        row = _contrast(contrast, statistic, arms.paired, seed=seed, draws=draws, level=level)
        rows.append({"treatment": arms.treatment, "control": arms.control, "statistic": statistic.key} | row | counts)
    return rows


def _changes(arms: Arms, clustering: Clustering, statistic: Statistic) -> Floats | None:
    """Sums over pairs of what the treatment gained and of what it lost, [directions, (prompts,) 2].

    None where the arms are no pairs or count over different trials.
    """
    (above, below), (above_control, below_control) = (statistic.terms(frame) for frame in arms.frames)
    if not arms.paired or not np.array_equal(below, below_control):
        return None
    change = above - above_control
    return np.stack([clustering.sums(np.maximum(sign * change, 0)) for sign in (1, -1)], axis=-1)


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
    """Where a sample was judged, both arms of a pair stand for as many pairs as the rarer arm: screens and drawn
    samples draw by the place in the grid, so a place is drawn in both arms or in neither."""
    if not all("weight" in pair for pair in pairs):
        return pairs
    weight = np.maximum(pairs[0]["weight"].to_numpy(float), pairs[1]["weight"].to_numpy(float))
    return [pair.assign(weight=weight) for pair in pairs]


def _contrast(
    contrast: Contrast, statistic: Statistic, paired: bool, *, seed: int, draws: int, level: float
) -> dict[str, object]:
    totals, values = contrast.totals, contrast.values
    difference = ratio = _UNDEFINED
    quotient, p, exact = math.nan, math.nan, False
    if not (totals[1] and totals[3]):
        empty = [name for name, total in zip(("treatment", "control"), totals[[1, 3]], strict=True) if not total]
        note = f"{statistic.undefined} in {' and '.join(empty)}"
    else:
        difference = contrast.difference(level)
        few = [name for name, total in zip(("treatment", "control"), totals[[1, 3]], strict=True) if total < MIN_EVENTS]
        notes = []
        if statistic.over == "multi_attempt" and few:
            notes.append(f"cannot be tested: fewer than {MIN_EVENTS} multi-attempt responses in {' and '.join(few)}")
        elif paired and contrast.changes is not None:
            p, exact = exchange_p(contrast.by_direction, seed=seed, draws=draws)
        else:
            p = interval_p(contrast.difference, draws)
        if statistic.bounds[0] < 0:
            notes.append("no ratio of a quantity that can be negative")
        elif values[1] == 0:
            notes.append("no ratio to a control of 0")
        else:
            quotient, ratio = float(values[0] / values[1]), contrast.ratio(level)
        note = "; ".join(notes)
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


class Contrast:
    """One statistic in two arms, and the intervals of its difference and ratio when both arms have a denominator.

    ``columns`` [directions, 4] or [directions, prompts, 4]: sums of the treatment's numerators and denominators, then
    the control's. ``changes`` [directions, (prompts,) 2]: the pairs' summed gains and losses; None without pairs that
    are counted in both arms. ``sampled`` [draws, 4]: ``bootstrap_sums`` of the columns. ``bounds``: a trial's range.
    """

    def __init__(
        self, columns: Floats, changes: Floats | None, sampled: Floats, bounds: tuple[float, float], seed: int
    ) -> None:
        self.columns, self.changes, self.bounds, self.seed = columns, changes, bounds, seed
        self.by_direction = columns if columns.ndim == 2 else columns.sum(axis=1)
        self.totals = self.by_direction.sum(axis=0)
        self.values = divide(self.totals[[0, 2]], self.totals[[1, 3]])
        self.sampled = [divide(sampled[:, k], sampled[:, k + 1]) for k in (0, 2)]
        marginals = [self.by_direction] if columns.ndim == 2 else [self.by_direction, columns.sum(axis=0)]
        self.clusters = min(int((part[:, [1, 3]] > 0).sum(axis=0).min()) for part in marginals)
        self.differing = min(int((part[:, :2] != part[:, 2:]).any(axis=1).sum()) for part in marginals)

    def difference(self, level: float) -> Interval:
        """Of treatment - control."""
        arms = self._arms(level)
        if not all(arm.method in BOOTSTRAPS for arm in arms):
            return mover_difference(self.values, arms)
        if self.differing >= MIN_CLUSTERS:
            return self._percentiles(self.sampled[0] - self.sampled[1], level, arms[0].method)
        if self.changes is None:
            return mover_difference(self.values, arms)
        return replace(self._gain_less_loss(self.changes, level), method=MOVER_CHANGES)

    def ratio(self, level: float) -> Interval:
        """Of treatment / control."""
        arms = self._arms(level)
        if all(arm.method in BOOTSTRAPS for arm in arms) and self.differing >= MIN_CLUSTERS:
            return self._percentiles(divide(*self.sampled), level, arms[0].method)
        return mover_ratio(self.values, arms)

    def _arms(self, level: float) -> list[Interval]:
        return [
            ratio_interval(
                self.columns[..., k], self.columns[..., k + 1], seed=self.seed, level=level,
                bounds=self.bounds, draws_of_ratio=self.sampled[k // 2],
            )
            for k in (0, 2)
        ]  # fmt: skip

    def _percentiles(self, draws: Floats, level: float, method: str) -> Interval:
        return Interval(*percentile_interval(draws, self.clusters, level), method)

    def _gain_less_loss(self, changes: Floats, level: float) -> Interval:
        counted, largest = self.columns[..., 1], self.bounds[1] - self.bounds[0]
        parts = [
            ratio_interval(
                changes[..., k], counted, seed=self.seed, draws=len(self.sampled[0]), level=level, bounds=(0.0, largest)
            )
            for k in (0, 1)
        ]
        return mover_difference([float(changes[..., k].sum() / counted.sum()) for k in (0, 1)], parts)


def interval_p(interval: Callable[[float], Interval], draws: int = DRAWS) -> float:
    """Two-sided p of a difference of 0: 1 - the highest level at which ``interval`` of it leaves 0 out.

    Found to 1e-9 between 1 / (draws + 1), for more the draws cannot tell, and 0.9999; above that it is 1.
    """

    def leaves_out(p: float) -> bool:
        found = interval(1 - p)
        return found.low > 0 or found.high < 0

    low, high = 1 / (draws + 1), 0.9999
    if not leaves_out(high):
        return 1.0
    if leaves_out(low):
        return low
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if leaves_out(middle) else (middle, high)
    return high


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
