"""Intervals for rates and means over trials that share directions, and where asked prompts.

Every headline number is a ratio of sums over clusters: events / trials, or sum of scores / responses. The clusters are
the directions, or directions crossed with prompts.

1. **cluster bootstrap** (Efron and Tibshirani 1993): whole directions are drawn with replacement, the ratio
   is taken anew, and percentiles of it are the interval. The percentiles are Hesterberg's expanded ones
   (2015, *What teachers should know about the bootstrap*), which undo the narrowness of the plain ones at few
   clusters.
2. The bootstrap knows no event it has not seen: at 0 events its width is 0, and with events in a handful of
   directions it is far too short (simulated, 40 directions x 5 trials, true rate 0.5 %: 58 % coverage instead
   of 95 %). So when fewer than ``MIN_CLUSTERS`` directions have events, or fewer than that have non-events,
   the interval is **Clopper and Pearson's on the effective number of trials** n / deff (z / t)^2, deff >= 1 being
   the measured design effect and t the quantile of one degree of freedom fewer than directions (Korn and Graubard
   1998).
3. With events in fewer than two directions (or non-events, or when all directions agree) the design effect
   cannot be measured. Then the worst is assumed: all trials of a direction are copies of one another, and the
   effective number is Kish's (sum m)^2 / sum m^2, the number of directions when they are equally large.

**Directions crossed with prompts.** Directions and prompts are drawn independently of each other, and a trial counts
as often as its direction times as often as its prompt: Owen's pigeonhole bootstrap (2007). Its variance is that of the
directions plus that of the prompts plus three times that of what belongs to neither, so it is never too narrow in
expectation, and up to sqrt(3) too wide where trials depend on nothing but themselves. The rules above hold for
directions and for prompts alike, the stricter one decides, t has the smaller number of degrees of freedom, and where
Clopper and Pearson's interval is taken the two variances are added: 1 / n = 1 / n_directions + 1 / n_prompts.

Intervals by direction are about the study's own prompts. For others like them they are too short as soon as prompts
matter: simulated with a tenth of the variance between prompts, coverage went down to 63 %.

**What is claimed** (simulated in ``benchmarks/coverage.py``). 95 % +- 2 where directions are bootstrapped; elsewhere,
and whenever prompts are crossed, at least 93 %, conservative by design and often near 100 %.

Means go the same way after their range is mapped to [0, 1], where the variance of a bounded variable is at most that of
an event with the same mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, ndtri, stdtrit
from scipy.stats import binomtest

from esr.errors import UserError

DRAWS = 10_000
LEVEL = 0.95
MIN_CLUSTERS = 10
"""Directions with events, and with non-events, that the bootstrap needs; below it, Clopper and Pearson."""

Clusters = Literal["direction", "direction x prompt"]
"""What trials may share that makes them alike."""

BOOTSTRAP = "cluster bootstrap"
CROSSED_BOOTSTRAP = "two-way cluster bootstrap"
MEASURED = "Clopper-Pearson, measured design effect"
DIRECTIONS_AS_TRIALS = "Clopper-Pearson, directions as trials"
CROSSED_AS_TRIALS = "Clopper-Pearson, directions and prompts as trials"
BOOTSTRAPS = (BOOTSTRAP, CROSSED_BOOTSTRAP)
UNDEFINED = "undefined"
_METHODS = ((DIRECTIONS_AS_TRIALS, MEASURED, BOOTSTRAP), (CROSSED_AS_TRIALS, MEASURED, CROSSED_BOOTSTRAP))
_UNMEASURABLE, _MEASURABLE, _PLENTY = range(3)

Floats = NDArray[np.float64]

_PROMPTS = 1
"""Sets the prompts' random numbers apart from the directions'."""
_KEPT = 50_000_000
"""Counts up to this many are kept for the next statistic or condition with as many clusters: at most 100 MB a set, four
sets.
Drawing those of 1,340 directions takes .9 s, and a report needs them some hundred times.
"""
_CHUNK = 4_000_000
"""Numbers worked on at a time: about 32 MB."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval and the rule that gave it; NaN bounds when ``method`` is ``"undefined"``."""

    low: float
    high: float
    method: str


def wilson(events: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for ``events`` of ``trials`` independent trials (SciPy); (NaN, NaN) for no
    trials.
    """
    if trials == 0:
        return math.nan, math.nan
    interval = binomtest(events, trials).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_effective(rate: float, trials: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval for a rate in [0, 1] seen over any positive, also fractional, number of trials.

    ``quantile`` is the two-sided standard one, 1.96 for 95 %.
    """
    square = quantile**2 / trials
    centre = (rate + square / 2) / (1 + square)
    half = math.sqrt(rate * (1 - rate) * square + square**2 / 4) / (1 + square)
    return (0.0 if rate == 0 else max(0.0, centre - half)), (1.0 if rate == 1 else min(1.0, centre + half))


def clopper_pearson(rate: float, trials: float, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval for a rate in [0, 1] seen over any positive, also fractional, number of trials."""
    tail, events, others = (1 - level) / 2, rate * trials, (1 - rate) * trials
    low = 0.0 if events <= 0 else float(betaincinv(events, others + 1, tail))
    high = 1.0 if others <= 0 else float(betaincinv(events + 1, others, 1 - tail))
    return low, high


def bootstrap_sums(sums: Floats, *, seed: int, draws: int = DRAWS) -> Floats:
    """Column sums over clusters drawn with replacement: [draws, columns].

    ``sums`` [directions, columns]: a draw is one multinomial vector of how often each direction was taken.
    ``sums`` [directions, prompts, columns]: a draw is two such vectors, and a cell counts as their product.
    The columns share the draws, so ratios and differences of columns are bootstrapped jointly.
    """
    clusters, columns = len(sums), sums.shape[-1]
    if sums.ndim == 2:
        parts = [counts @ sums for counts in _counts(clusters, (seed,), draws, max(1, _CHUNK // clusters))]
        return np.concatenate(parts)
    prompts = sums.shape[1]
    chunk = max(1, _CHUNK // max(clusters, prompts * columns))
    flat = sums.reshape(clusters, prompts * columns)
    drawn = zip(_counts(clusters, (seed,), draws, chunk), _counts(prompts, (seed, _PROMPTS), draws, chunk), strict=True)
    parts = [
        np.einsum("bp,bpc->bc", prompt, (direction @ flat).reshape(-1, prompts, columns)) for direction, prompt in drawn
    ]
    return np.concatenate(parts)


def _counts(clusters: int, stream: tuple[int, ...], draws: int, chunk: int) -> Iterator[Floats]:
    """How often each cluster was taken, [at most chunk, clusters] at a time, ``draws`` rows in all."""
    kept = _kept_counts(clusters, stream, draws) if clusters * draws <= _KEPT else None
    generator = np.random.default_rng(stream)
    for first in range(0, draws, chunk):
        size = min(chunk, draws - first)
        part = _multinomial(generator, clusters, size) if kept is None else kept[first : first + size]
        yield part.astype(np.float64)


@lru_cache(maxsize=4)
def _kept_counts(clusters: int, stream: tuple[int, ...], draws: int) -> NDArray[np.unsignedinteger]:
    generator = np.random.default_rng(stream)
    chunk = max(1, _CHUNK // clusters)
    counts = np.empty((draws, clusters), np.uint8 if clusters < 256 else np.uint16)
    for first in range(0, draws, chunk):  # a count is a hundredth of what the generator's own type takes
        counts[first : first + chunk] = _multinomial(generator, clusters, min(chunk, draws - first))
    counts.setflags(write=False)
    return counts


def _multinomial(generator: np.random.Generator, clusters: int, draws: int) -> NDArray[np.int64]:
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)


def percentile_interval(values: Floats, clusters: int, level: float = LEVEL) -> tuple[float, float]:
    """Hesterberg's expanded percentiles of bootstrapped values; undefined (NaN) draws are left out.

    The tail probability (1 - level) / 2 becomes Phi(-sqrt(n / (n - 1)) t), with t the quantile of n - 1
    degrees of freedom for n clusters.
    """
    values = values[~np.isnan(values)]
    if clusters < 2 or values.size == 0:
        return math.nan, math.nan
    tail = float(ndtr(-math.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, (1 + level) / 2)))
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def ratio_interval(
    numerators: Floats,
    denominators: Floats,
    *,
    seed: int,
    draws: int = DRAWS,
    level: float = LEVEL,
    bounds: tuple[float, float] = (0.0, 1.0),
    draws_of_ratio: Floats | None = None,
) -> Interval:
    """The interval of sum(numerators) / sum(denominators) by the rule of this module.

    Both have one entry per direction, or are tables of [directions, prompts]: then prompts count as clusters too.
    ``bounds`` is the range of a single trial's value: (0, 1) for an event, (0, 100) for a score.
    ``draws_of_ratio`` [draws] may hand in a bootstrap that was already done.
    """
    numerators, denominators = _contributing(numerators, denominators)
    if denominators.size == 0:
        return Interval(math.nan, math.nan, UNDEFINED)
    low, high = bounds
    events = (numerators - low * denominators) / (high - low)  # now every trial's value lies in [0, 1]
    effective, method = _design(events, denominators, level)
    if method in BOOTSTRAPS:
        if draws_of_ratio is None:
            sampled = bootstrap_sums(np.stack([numerators, denominators], axis=-1), seed=seed, draws=draws)
            draws_of_ratio = divide(sampled[:, 0], sampled[:, 1])
        return Interval(*percentile_interval(draws_of_ratio, min(denominators.shape), level), method)
    rate = min(1.0, max(0.0, float(events.sum() / denominators.sum())))
    bottom, top = clopper_pearson(rate, effective, level)
    return Interval(low + bottom * (high - low), low + top * (high - low), method)


def divide(numerators: Floats, denominators: Floats) -> Floats:
    """Elementwise ratio; 0 / 0 is NaN and x / 0 is infinite with the sign of x, both without a warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(numerators / denominators, dtype=np.float64)


def _contributing(numerators: Floats, denominators: Floats) -> tuple[Floats, Floats]:
    numerators, denominators = np.asarray(numerators, float), np.asarray(denominators, float)
    if numerators.shape != denominators.shape or numerators.ndim not in (1, 2):
        raise UserError(
            "numerators and denominators are two vectors with one entry per cluster, or two tables of"
            " [directions, prompts]",
            f"shapes {numerators.shape} and {denominators.shape}",
        )
    kept = np.ix_(*(np.flatnonzero(_marginal(denominators, axis)) for axis in range(denominators.ndim)))
    return numerators[kept], denominators[kept]


def _marginal(table: Floats, axis: int) -> Floats:
    """The table's sums per entry of one axis."""
    return table if table.ndim == 1 else table.sum(axis=1 - axis)


def _design(events: Floats, trials: Floats, level: float) -> tuple[float, str]:
    """Effective number of trials and the rule, for clusters with ``events`` (each trial in [0, 1]) of ``trials``."""
    rate = float(events.sum()) / float(trials.sum())
    axes = [_one_way(_marginal(events, axis), _marginal(trials, axis), rate) for axis in range(trials.ndim)]
    effective = 1 / sum(1 / number for number, _ in axes)
    rule = min(rule for _, rule in axes)
    if rule == _MEASURABLE:
        upper, degrees = (1 + level) / 2, min(trials.shape) - 1
        effective *= float(ndtri(upper) / stdtrit(degrees, upper)) ** 2
    return effective, _METHODS[trials.ndim - 1][rule]


def _one_way(events: Floats, trials: Floats, rate: float) -> tuple[float, int]:
    """The same for one kind of clusters, without the degrees of freedom; the rule as a place in ``_METHODS``."""
    clusters, total = len(trials), float(trials.sum())
    tolerance = 1e-9 * trials
    varied = min(int((events > tolerance).sum()), int((events < trials - tolerance).sum()))
    spread = float(((events - rate * trials) ** 2).sum())  # linearised variance of the ratio, times total^2
    if varied < 2 or spread <= 1e-18 * total**2:
        return total**2 / float((trials**2).sum()), _UNMEASURABLE
    effect = clusters / (clusters - 1) * spread / (total * rate * (1 - rate))
    return total / max(1.0, effect), _MEASURABLE if varied < MIN_CLUSTERS else _PLENTY
