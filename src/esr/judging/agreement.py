"""How far two judges agree on the same responses: pairwise statistics with intervals, and what to give to the second.

Agreement is counted over responses that both judges scored. Where the second judge saw a sample only, responses carry
weights (``stratified_sample``), so that the figures estimate agreement on the whole study. Intervals come from a
bootstrap over directions: trials of one direction are alike and are drawn together.

Frames have one row per response and judge, columns ``response`` (id), ``judge`` (name), ``judgement``
(``Scored`` or ``Unscored``), ``direction`` (the cluster) and, optionally, ``weight``: how many responses of the study
the row stands for; where two judges' rows differ, the larger holds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.errors import UserError
from esr.judging.records import EXPLICIT_KINDS, Judgement, Scored

Floats = NDArray[np.float64]
Id = TypeVar("Id", bound=Hashable)

COLUMNS = ("response", "judge", "judgement", "direction")


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bootstrap interval. NaN where it is not defined, for example without any restart."""

    value: float
    low: float
    high: float
    n: int
    """Responses it was computed from."""


@dataclass(frozen=True)
class Agreement:
    """Two judges over the responses that both scored."""

    judges: tuple[str, str]
    n: int
    """Responses that both scored."""
    directions: int
    unscored: tuple[int, int]
    """Responses given to both that the first, the second left unscored."""
    reasons: Mapping[str, tuple[int, int]]
    """Why, per reason."""
    multi: tuple[int, int]
    """Multi-attempt responses (at least one explicit restart) by each judge."""
    raw: Estimate
    """Share on which they agree whether the response is multi-attempt."""
    kappa: Estimate
    """Cohen's kappa of the same."""
    alpha: Estimate
    """Krippendorff's alpha of the same, nominal."""
    direction: Estimate
    """Share with the same sign of (last - first score), of the responses both found to be multi-attempt."""
    score_rank: Estimate
    """Spearman's rank correlation of the first attempt's score."""
    score_difference: Estimate
    """Mean absolute difference of the first attempt's score, in points of 100."""
    score_alpha: Estimate
    """Krippendorff's alpha of the first attempt's score, interval."""
    boundary: Estimate
    """Mean distance of the first explicit restart's position, in characters, where both found one."""


# Statistics of paired values. x, y: shape [n]; w: weights > 0, shape [n].


def raw_agreement(x: Floats, y: Floats, w: Floats) -> float:
    """Weighted share of equal values; NaN for none."""
    return _mean(x == y, w)


def cohen_kappa(x: Floats, y: Floats, w: Floats) -> float:
    """(observed - expected) / (1 - expected) agreement, each judge with its own margins (Cohen 1960).

    NaN when both always say the same one thing: chance agreement is then complete.
    """
    observed = raw_agreement(x, y, w)
    expected = sum(_mean(x == value, w) * _mean(y == value, w) for value in np.union1d(x, y))
    return math.nan if expected >= 1 - 1e-12 else (observed - expected) / (1 - expected)


def krippendorff_alpha(x: Floats, y: Floats, w: Floats, *, interval: bool) -> float:
    """1 - observed / expected disagreement for two coders without gaps (Krippendorff 2011).

    Disagreement of two values is 1 if they differ (nominal) or the square of their difference (interval). Expected is
    over all pairs of the pooled 2n values, a value never paired with itself. NaN when nothing varies.
    """
    values, pooled = np.concatenate([x, y]), np.concatenate([w, w])
    total = pooled.sum()
    if len(x) == 0 or total <= 1:
        return math.nan
    if interval:
        observed = _mean((x - y) ** 2, w)
        spread = 2 * (total * (pooled @ values**2) - (pooled @ values) ** 2)
    else:
        observed = 1 - raw_agreement(x, y, w)
        masses = np.array([pooled[values == value].sum() for value in np.unique(values)])
        spread = total**2 - (masses**2).sum()
    expected = spread / (total * (total - 1))
    return math.nan if expected <= 1e-12 else 1 - observed / expected


def spearman(x: Floats, y: Floats, w: Floats) -> float:
    """Rank correlation with mean ranks for ties, weighted; NaN when a side does not vary."""
    if len(x) < 2:
        return math.nan
    a, b = _ranks(x, w), _ranks(y, w)
    a, b = a - _mean(a, w), b - _mean(b, w)
    scale = math.sqrt(_mean(a * a, w) * _mean(b * b, w))
    return math.nan if scale <= 1e-12 else _mean(a * b, w) / scale


def mean_absolute_difference(x: Floats, y: Floats, w: Floats) -> float:
    """Weighted mean of |x - y|; NaN for none."""
    return _mean(np.abs(x - y), w)


def _mean(values: Floats | NDArray[np.bool_], w: Floats) -> float:
    return float((w * values).sum() / w.sum()) if len(w) else math.nan


def _ranks(x: Floats, w: Floats) -> Floats:
    """Mid-ranks by weight: the weight below plus half the weight tied."""
    _, group = np.unique(x, return_inverse=True)
    mass = np.bincount(group, weights=w)
    below = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    return (below + mass / 2)[group]


# Over a study


def pairwise_agreement(
    frame: pd.DataFrame, *, seed: int, resamples: int = 1000, level: float = 0.95
) -> list[Agreement]:
    """Agreement of every pair of judges in the frame, pairs in the order of their names.

    Raises UserError for missing columns, fewer than two judges, a response judged twice by one judge, a weight that is
    not positive.
    """
    missing = [c for c in COLUMNS if c not in frame.columns]
    if missing:
        raise UserError(f"a frame of judgements has the columns {', '.join(COLUMNS)}", f"without {missing[0]}")
    if "weight" in frame.columns and not (frame["weight"] > 0).all():
        raise UserError("weights are positive", float(frame["weight"].min()))
    if frame.duplicated(["response", "judge"]).any():
        twice = frame[frame.duplicated(["response", "judge"])].iloc[0]
        raise UserError("a judge judges a response once", f"{twice['response']} twice by {twice['judge']}")
    names = sorted(frame["judge"].unique())
    if len(names) < 2:
        raise UserError("agreement needs at least two judges", f"{len(names)}", "Grade the study with a second judge")
    return [
        _agree(frame, a, b, seed=seed, resamples=resamples, level=level)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]


def _agree(frame: pd.DataFrame, a: str, b: str, *, seed: int, resamples: int, level: float) -> Agreement:
    left = frame[frame["judge"] == a].set_index("response")
    right = frame[frame["judge"] == b].set_index("response")
    ids = left.index.intersection(right.index).sort_values()
    left, right = left.loc[ids], right.loc[ids]
    first: list[Judgement] = list(left["judgement"])
    second: list[Judgement] = list(right["judgement"])
    keep = [
        i for i, (p, q) in enumerate(zip(first, second, strict=True)) if isinstance(p, Scored) and isinstance(q, Scored)
    ]
    pairs = [(p, q) for p, q in zip(first, second, strict=True) if isinstance(p, Scored) and isinstance(q, Scored)]
    weights = np.ones(len(keep))
    if "weight" in frame.columns:
        weights = np.maximum(np.asarray(left["weight"], float), np.asarray(right["weight"], float))[keep]
    clusters = pd.factorize(np.asarray(left["direction"])[keep], use_na_sentinel=False)[0]
    boot = _Bootstrap(clusters, weights, seed, resamples, level)

    def columns(read: Callable[[Scored], float]) -> tuple[Floats, Floats]:
        return np.array([read(p) for p, _ in pairs], float), np.array([read(q) for _, q in pairs], float)

    multi = columns(lambda s: float(s.explicit_restarts > 0))
    opening = columns(lambda s: s.attempts[0].score)
    change = columns(lambda s: float(np.sign(s.attempts[-1].score - s.attempts[0].score)))
    restart = columns(_first_restart)
    both = (multi[0] > 0) & (multi[1] > 0)
    everything = np.ones(len(pairs), dtype=bool)
    return Agreement(
        judges=(a, b),
        n=len(pairs),
        directions=int(clusters.max()) + 1 if len(clusters) else 0,
        unscored=(
            sum(not isinstance(j, Scored) for j in first),
            sum(not isinstance(j, Scored) for j in second),
        ),
        reasons=_reasons(first, second),
        multi=(int(multi[0].sum()), int(multi[1].sum())),
        raw=boot(raw_agreement, multi, everything),
        kappa=boot(cohen_kappa, multi, everything),
        alpha=boot(lambda x, y, w: krippendorff_alpha(x, y, w, interval=False), multi, everything),
        direction=boot(raw_agreement, change, both),
        score_rank=boot(spearman, opening, everything),
        score_difference=boot(mean_absolute_difference, opening, everything),
        score_alpha=boot(lambda x, y, w: krippendorff_alpha(x, y, w, interval=True), opening, everything),
        boundary=boot(mean_absolute_difference, restart, both),
    )


def _first_restart(judgement: Scored) -> float:
    return next((float(a.start) for a in judgement.attempts if a.kind in EXPLICIT_KINDS), math.nan)


def _reasons(first: list[Judgement], second: list[Judgement]) -> dict[str, tuple[int, int]]:
    counts = [
        pd.Series([j.reason for j in side if not isinstance(j, Scored)], dtype=object).value_counts()
        for side in (first, second)
    ]
    names = sorted({str(r) for c in counts for r in c.index})
    return {name: (int(counts[0].get(name, 0)), int(counts[1].get(name, 0))) for name in names}


Statistic = Callable[[Floats, Floats, Floats], float]


class _Bootstrap:
    """Percentile intervals over whole clusters, the same draws for every statistic."""

    def __init__(self, clusters: NDArray[np.intp], weights: Floats, seed: int, resamples: int, level: float) -> None:
        self._clusters, self._weights, self._level = clusters, weights, level
        k = int(clusters.max()) + 1 if len(clusters) else 0
        rng = np.random.default_rng(seed)
        draws = rng.integers(0, k, size=(resamples, k)) if k else np.empty((0, 0), dtype=np.int64)
        self._copies = [np.bincount(draw, minlength=k) for draw in draws]

    def __call__(self, statistic: Statistic, pair: tuple[Floats, Floats], keep: NDArray[np.bool_]) -> Estimate:
        x, y = pair[0][keep], pair[1][keep]
        w, clusters = self._weights[keep], self._clusters[keep]
        value = statistic(x, y, w)
        if len(np.unique(clusters)) < 2:  # one direction says nothing about others
            return Estimate(value, math.nan, math.nan, len(x))
        replicates = []
        for copies in self._copies:
            times = copies[clusters]
            here = times > 0
            replicates.append(statistic(x[here], y[here], w[here] * times[here]) if here.any() else math.nan)
        drawn = np.array(replicates)
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn) == 0:
            return Estimate(value, math.nan, math.nan, len(x))
        low, high = np.quantile(drawn, [(1 - self._level) / 2, (1 + self._level) / 2])
        return Estimate(value, float(low), float(high), len(x))


def stratified_sample(
    multi: Mapping[Id, bool], *, rest: int, seed: int, places: Mapping[Id, Hashable] | None = None
) -> dict[Id, float]:
    """Which responses to give to a second judge, and with what weight they then count.

    ``multi``: for each response, whether the first judge found it multi-attempt. All of those are kept, with weight 1,
    and about ``rest`` of the others. These are drawn by place: ``places`` says which responses stand at one place of
    the grid (the same trial under other conditions; default: each at its own), and n of the N places with others are
    drawn without replacement, each with all its others, so that pairs stay pairs; they weigh N / n. n makes ``rest``
    others, rounded up. If there are no more than ``rest`` others, all are kept with weight 1. A larger sample of the
    same seed has all places of a smaller one.
    """
    if rest < 1:
        raise UserError("the sample has at least one response without restart", rest)
    kept: dict[Id, float] = {id: 1.0 for id, m in multi.items() if m}
    others: dict[Hashable, list[Id]] = {}
    for id, m in multi.items():
        if not m:
            others.setdefault(id if places is None else places[id], []).append(id)
    total = sum(map(len, others.values()))
    n = len(others) if total <= rest else math.ceil(rest * len(others) / total)
    # an order by hash: it changes little when conditions are added
    order = sorted(others, key=lambda place: hashlib.sha256(repr((seed, place)).encode()).digest())
    return kept | {id: len(others) / n for place in order[:n] for id in others[place]}
