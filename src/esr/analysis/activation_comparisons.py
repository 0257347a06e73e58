"""Where latents are more active: before against after the restart, and episodes against their matched controls.

A **pair** is an episode and, in the same region, the mean of its controls of one kind (or, within episodes, the
off-topic and the on-topic region). Its cluster is the episode's direction. Per latent and per group:

- **difference** and **ratio** of the pairs' means; intervals by ``esr.analysis.paired``: a joint cluster bootstrap, or
  the two arms' own combined (MOVER) where an arm is too thin for it or too few directions differ;
- **Cohen's d** and **Cliff's delta** of the episodes against the single controls (not against each episode's mean
  control, which varies less); within episodes, of the off-topic against the on-topic regions as if unpaired. Intervals
  by the cluster bootstrap (of delta near -1 or 1, Clopper and Pearson's), undefined with fewer than ``MIN_CLUSTERS``
  directions active;
- two tests that the pairs' differences are symmetric about 0: **sign flip**, which flips all pairs of a direction
  together (exact or with ``draws`` flips, ``esr.analysis.paired.exchange_p``), and **Wilcoxon**'s signed rank, which
  takes pairs as independent and is therefore too sure where a direction has several;
- **Holm** over the family of all latents in one comparison and region; the groups are a family of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.analysis.activation_effects import cliffs_delta, cohen_d, signed_rank
from esr.analysis.activation_regions import NEVER_ACTIVE, NO_INTERVAL, Arm, Resampling, contrast, largest_means, ratio
from esr.analysis.activations import REGIONS, SPANS, Activations
from esr.analysis.paired import exchange_p, holm
from esr.analysis.uncertainty import (
    BOOTSTRAP,
    DRAWS,
    LEVEL,
    MIN_CLUSTERS,
    Floats,
    Interval,
    divide,
    percentile_interval,
    ratio_interval,
)

WITHIN = "within episodes"
WITHIN_REGIONS = "off-topic - on-topic"
KEY_CONTROL = "episode - no-recovery"
"""Are the detectors more active before a restart than in steered text that never restarts?"""
CONTROLS = {KEY_CONTROL: "no-recovery", "episode - unsteered": "unsteered"}


def compare_activations(
    activations: Activations, *, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> pd.DataFrame:
    """One row per comparison, region and unit (latent or group).

    ``comparison`` is "within episodes" (``region`` "off-topic - on-topic") or a key of ``CONTROLS``, in every one of
    ``SPANS``. Columns besides: ``unit``, ``name``; ``n_pairs``, ``n_directions``, ``n_left_out`` (episodes without such
    a pair); ``mean_first``, ``mean_second``; ``difference`` and ``ratio``, each with ``_low``, ``_high``, ``_method``;
    ``n_first``, ``n_second`` (responses in the effect sizes), ``cohen_d`` and ``cliffs_delta``, each with ``_low``,
    ``_high``, ``_method``; ``p_flip``, ``p_flip_exact`` (bool), ``p_flip_holm``, ``wilcoxon`` (its statistic),
    ``p_wilcoxon``, ``p_wilcoxon_holm``; ``note``: why a value is NaN.
    """
    resampling = Resampling.of(activations, seed=seed, draws=draws, level=level)
    tables = [_table(pairs, activations.units, resampling) for pairs in _all_pairs(activations, resampling)]
    return pd.concat(tables, ignore_index=True)


def key_control_notes(comparisons: pd.DataFrame) -> list[str]:
    """One sentence per group: its activation before the restart against that of steered text that never restarts."""
    key = comparisons["comparison"].eq(KEY_CONTROL) & comparisons["region"].eq(REGIONS[0])
    notes = []
    for _, row in comparisons[key & comparisons["unit"].eq("group")].iterrows():
        start = f"{row['name']}, tokens before the restart: "
        if math.isnan(row["difference_low"]):
            notes.append(f"{start}no comparison with steered text that never restarts ({row['note']}).")
            continue
        verdict = "no difference shown"
        if row["difference_low"] > 0 or row["difference_high"] < 0:
            verdict = f"{'higher' if row['difference'] > 0 else 'lower'} before a restart"
        p = "<0.001" if row["p_flip"] < 0.001 else f"{row['p_flip']:.3f}"
        notes.append(
            f"{start}episodes {row['mean_first']:.3g}, steered text that never restarts {row['mean_second']:.3g};"
            f" difference {row['difference']:+.3g} ({row['difference_low']:+.3g} to {row['difference_high']:+.3g}),"
            f" sign-flip p {p}, {row['n_pairs']} pairs of {row['n_directions']} directions: {verdict}."
        )
    return notes


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The region means that one comparison is made of."""

    comparison: str
    region: str
    first: Floats
    """[pairs, units]: of the episodes."""
    second: Floats
    """[pairs, units]: of each episode's mean control."""
    codes: NDArray[np.int64]
    """[pairs]: the episode's direction."""
    singles: Floats
    """[controls, units]: the controls one by one."""
    single_codes: NDArray[np.int64]
    """[controls]: their episode's direction."""
    left_out: int
    """Episodes without this pair."""
    largest: Floats
    """[units]: the largest region mean of the regions compared."""

    @property
    def sides(self) -> tuple[tuple[Floats, NDArray[np.int64]], tuple[Floats, NDArray[np.int64]]]:
        """The values of the effect sizes and their directions."""
        return (self.first, self.codes), (self.singles, self.single_codes)


def _all_pairs(activations: Activations, resampling: Resampling) -> Iterator[_Pairs]:
    means = activations.region_means()
    largest = largest_means(means)
    readings = activations.readings
    episodes = [i for i, r in enumerate(readings) if r.kind == "episode"]
    codes = resampling.codes([readings[i].direction for i in episodes])
    position = {readings[i].trial: k for k, i in enumerate(episodes)}

    before, after = SPANS.index("off-topic"), SPANS.index("on-topic")
    first, second = means[episodes, before], means[episodes, after]
    has = ~np.isnan(first[:, 0]) & ~np.isnan(second[:, 0])
    yield _Pairs(
        WITHIN, WITHIN_REGIONS, first[has], second[has], codes[has], second[has], codes[has],
        int((~has).sum()), np.maximum(largest[before], largest[after]),
    )  # fmt: skip

    for comparison, kind in CONTROLS.items():
        chosen = [i for i, r in enumerate(readings) if r.kind == kind]
        owners = np.array([position[readings[i].episode] for i in chosen], dtype=np.int64)
        for s, region in enumerate(SPANS):
            first, singles = means[episodes, s], means[chosen, s]
            usable = ~np.isnan(singles[:, 0]) & ~np.isnan(first[owners, 0])
            singles, owned = singles[usable], owners[usable]
            counts = np.bincount(owned, minlength=len(episodes))
            totals = np.zeros_like(first)
            np.add.at(totals, owned, singles)
            has = counts > 0
            yield _Pairs(
                comparison, region, first[has], totals[has] / counts[has, None], codes[has], singles, codes[owned],
                int((~has).sum()), largest[s],
            )  # fmt: skip


def _table(pairs: _Pairs, units: list[tuple[str, str]], resampling: Resampling) -> pd.DataFrame:
    first = Arm(pairs.first, pairs.codes, pairs.largest, resampling)
    second = Arm(pairs.second, pairs.codes, pairs.largest, resampling)
    draws_of_d = _draws_of_d(pairs, resampling)
    rows = []
    for u, (unit, name) in enumerate(units):
        quotient, interval, reason = ratio(first, second, u, resampling)
        both = contrast(first, second, u, resampling)
        difference = NO_INTERVAL if isinstance(both, str) else both.difference(resampling.level)
        effects, tests = _effects(pairs, u, draws_of_d, resampling), _tests(pairs, first, second, u, resampling)
        undefined = {
            "no spread for Cohen's d": effects["cohen_d"],
            f"fewer than {MIN_CLUSTERS} active directions, so no effect-size interval": effects["cliffs_delta_low"],
            "no pair differs": tests["p_wilcoxon"],
        }
        notes = [reason] if reason else []
        if reason != NEVER_ACTIVE:
            notes += [text for text, value in undefined.items() if math.isnan(value)]
        rows.append(
            {"comparison": pairs.comparison, "region": pairs.region, "unit": unit, "name": name}
            | {"n_pairs": first.n, "n_directions": first.n_directions, "n_left_out": pairs.left_out}
            | {"mean_first": float(first.mean[u]), "mean_second": float(second.mean[u])}
            | {"difference": float(first.mean[u] - second.mean[u])}
            | _columns("difference", difference)
            | {"ratio": quotient}
            | _columns("ratio", interval)
            | {"n_first": len(pairs.first), "n_second": len(pairs.singles)}
            | effects
            | tests
            | {"note": "; ".join(notes) if first.n else "no pairs"}
        )
    table = pd.DataFrame(rows)
    for test in ("p_flip", "p_wilcoxon"):
        table[f"{test}_holm"] = math.nan
        for unit in ("latent", "group"):
            family = table["unit"].eq(unit) & table[test].notna()
            table.loc[family, f"{test}_holm"] = holm(table.loc[family, test].tolist())
    return table


def _columns(key: str, interval: Interval) -> dict[str, object]:
    return {f"{key}_low": interval.low, f"{key}_high": interval.high, f"{key}_method": interval.method}


def _tests(pairs: _Pairs, first: Arm, second: Arm, unit: int, resampling: Resampling) -> dict[str, float]:
    if not first.n or not pairs.largest[unit]:
        return {"p_flip": math.nan, "p_flip_exact": False, "wilcoxon": math.nan, "p_wilcoxon": math.nan}
    columns = np.stack([first.sums[:, unit], first.counts, second.sums[:, unit], second.counts], axis=1)
    p, exact = exchange_p(columns, seed=resampling.seed, draws=len(resampling.weights))
    statistic, p_rank = signed_rank(pairs.first[:, unit] - pairs.second[:, unit])
    return {"p_flip": p, "p_flip_exact": exact, "wilcoxon": statistic, "p_wilcoxon": p_rank}


def _effects(pairs: _Pairs, unit: int, draws_of_d: Floats, resampling: Resampling) -> dict[str, Any]:
    a, b = pairs.first[:, unit], pairs.singles[:, unit]
    d, interval_of_d, interval_of_delta = cohen_d(a, b), NO_INTERVAL, NO_INTERVAL
    active = sum(resampling.sums(values[:, unit], codes) for values, codes in pairs.sides)
    if np.count_nonzero(active) >= MIN_CLUSTERS:
        interval_of_delta = _interval_of_delta(pairs, unit, resampling)
        if not math.isnan(d):
            limits = percentile_interval(draws_of_d[:, unit], len(np.unique(pairs.codes)), resampling.level)
            interval_of_d = Interval(*limits, BOOTSTRAP)
    return (
        {"cohen_d": d, **_columns("cohen_d", interval_of_d)}
        | {"cliffs_delta": cliffs_delta(a, b)}
        | _columns("cliffs_delta", interval_of_delta)
    )


def _draws_of_d(pairs: _Pairs, resampling: Resampling) -> Floats:
    """[draws, units], from sums and sums of squares per direction about a common centre."""
    centre = pairs.first.mean(axis=0) if len(pairs.first) else 0.0
    weights, sums = resampling.weights, resampling.sums
    means, squares, degrees = [], [], []
    for values, codes in pairs.sides:
        n = (weights @ sums(np.ones(len(values)), codes))[:, None]
        mean = divide(weights @ sums(values - centre, codes), n)
        squares.append(np.maximum(0.0, weights @ sums((values - centre) ** 2, codes) - n * mean**2))
        means.append(mean)
        degrees.append(n - 1)
    pooled = np.sqrt(np.maximum(0.0, divide(squares[0] + squares[1], degrees[0] + degrees[1])))
    return divide(means[0] - means[1], np.where(pooled > 0, pooled, np.nan))


def _interval_of_delta(pairs: _Pairs, unit: int, resampling: Resampling) -> Interval:
    """From the dominance between each two directions: delta is a mean of each first value's dominance in [-1, 1]."""
    (a, codes), (b, single_codes) = pairs.sides
    signs = np.sign(a[:, unit][:, None] - b[:, unit][None, :])
    dominance = resampling.sums(resampling.sums(signs, codes).T, single_codes).T  # [directions, directions]
    n_first, n_second = (resampling.sums(np.ones(len(c)), c) for c in (codes, single_codes))
    weights = resampling.weights
    totals = np.einsum("di,di->d", weights @ dominance, weights)
    return ratio_interval(
        dominance.sum(axis=1) / n_second.sum(), n_first, seed=resampling.seed, level=resampling.level,
        bounds=(-1.0, 1.0), draws_of_ratio=divide(totals, (weights @ n_first) * (weights @ n_second)),
    )  # fmt: skip
