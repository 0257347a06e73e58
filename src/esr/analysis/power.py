"""How many directions does a study need to see a change of a rate between two paired conditions?

Over D directions x k pairs, with rates p0 and p1, the two arms of a pair correlated by r and the differences of two
pairs of one direction by the intraclass correlation ICC (Donner and Klar 2000), the difference of rates has the
variance

    (p0 q0 + p1 q1 - 2 r sqrt(p0 q0 p1 q1)) / (D k) x (1 + (k - 1) ICC),

and when there is no change 2 p q (1 - r) in front of the same, with p the mean rate and q = 1 - p (so without
correlation and clusters it is the textbook's two-sample z test: Fleiss, Levin and Paik 2003). The test is two-sided.
That the scatter between directions is itself estimated, from D - 1 degrees of freedom, costs z^2 / 2 directions, about
2 (Guenther 1981).

Assumed: differences near normal. Where fewer than ``uncertainty.MIN_CLUSTERS`` directions have events the intervals are
conservative, and more directions are needed than this says. The exchange test of ``compare`` moves in steps and loses a
little more: simulated, 0.72 to 0.83 where 0.8 was planned, at 36 to 46 directions. The ICC is that of the pairs'
*differences*; for unrelated arms it is that of the single trials. A condition whose effect differs from direction to
direction raises it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from esr.analysis.metrics import statistic_named
from esr.analysis.paired import match
from esr.analysis.trials import checked
from esr.analysis.uncertainty import Floats
from esr.errors import UserError


class Pilot(NamedTuple):
    """What a study says of the next one."""

    rate: float
    """Of the control, over the pairs."""
    icc: float
    """Correlation of the differences of two pairs of one direction, at least 0; NaN if no difference varies."""
    correlation: float
    """Between the two arms of a pair; NaN if an arm does not vary."""


def pilot(trials: pd.DataFrame, condition: str, control: str, statistic: str = "esr_rate") -> Pilot:
    """Rate, ICC and pair correlation of two conditions of a study that is already there; every scored pair counts once.

    The ICC is the one-way analysis of variance's (Fisher; for unequal directions Donner and Koval 1980), the
    correlation Pearson's. Raises UserError for conditions without shared trials, a statistic that is no rate over
    scored responses, or fewer than two directions of which one has two pairs.
    """
    chosen = statistic_named(statistic)
    if not chosen.is_rate or chosen.over != "scored":
        raise UserError("directions are planned for a rate over scored responses", repr(statistic))
    arms = match(checked(trials, []), condition, control, paired=True)
    first, second = (frame[chosen.column].to_numpy(bool).astype(float) for frame in arms.frames)
    codes, names = pd.factorize(arms.frames[0]["direction"], sort=True)
    if not 2 <= len(names) < len(codes):
        raise UserError(
            "a pilot has at least two directions and two scored pairs of one of them",
            f"{len(codes)} pairs of {len(names)} directions",
        )
    varied = first.std() > 0 and second.std() > 0
    correlation = float(np.corrcoef(first, second)[0, 1]) if varied else math.nan
    return Pilot(float(second.mean()), intraclass_correlation(first - second, codes), correlation)


def intraclass_correlation(values: Floats, codes: NDArray[np.integer]) -> float:
    """(MSB - MSW) / (MSB + (m - 1) MSW), at least 0, of ``values`` [n] in the groups ``codes`` [n] from 0; m is the
    mean group size less (variance of the sizes) / n. NaN when nothing varies.
    """
    sizes = np.bincount(codes).astype(float)
    means = np.bincount(codes, weights=values) / sizes
    groups, total = len(sizes), float(sizes.sum())
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (groups - 1)
    within = float(((values - means[codes]) ** 2).sum()) / (total - groups)
    if between + within == 0:
        return math.nan
    size = (total - float((sizes**2).sum()) / total) / (groups - 1)
    return max(0.0, (between - within) / (between + (size - 1) * within))


def directions_needed(
    rate: float,
    change: float,
    per_direction: int,
    icc: float,
    correlation: float,
    *,
    power: float = 0.8,
    level: float = 0.05,
) -> int:
    """Directions for which a change from ``rate`` to ``rate + change`` is seen with probability ``power``.

    ``per_direction``: pairs of each direction. ``icc``, ``correlation``: see this module; a correlation that two such
    rates cannot have is taken as the nearest they can. ``level``: of the two-sided test. Raises UserError for values
    out of range.
    """
    _check(rate, per_direction, icc, correlation, level)
    _check_power(power)
    _check_change(rate, change)
    null, alternative = _scatter(rate, change, correlation)
    pairs = ((_quantile(level) * null + ndtri(power) * alternative) / change) ** 2
    return math.ceil(pairs * _effect(per_direction, icc) / per_direction + _estimation(level))


def power_at(
    directions: float,
    rate: float,
    change: float,
    per_direction: int,
    icc: float,
    correlation: float,
    *,
    level: float = 0.05,
) -> float:
    """Probability of seeing the change with that many directions; arguments and errors as in ``directions_needed``."""
    _check(rate, per_direction, icc, correlation, level)
    _check_change(rate, change)
    null, alternative = _scatter(rate, change, correlation)
    pairs = max(0.0, directions - _estimation(level)) * per_direction / _effect(per_direction, icc)
    if alternative == 0:
        return float(abs(change) * math.sqrt(pairs) > _quantile(level) * null)
    threshold, shift = _quantile(level) * null / alternative, abs(change) * math.sqrt(pairs) / alternative
    return float(ndtr(shift - threshold) + ndtr(-shift - threshold))


def minimum_change(
    directions: float,
    rate: float,
    per_direction: int,
    icc: float,
    correlation: float,
    *,
    power: float = 0.8,
    level: float = 0.05,
) -> tuple[float, float]:
    """The smallest fall (negative) and the smallest rise that so many directions see with that power.

    NaN where not even a fall to 0, or a rise to 1, is seen. Arguments and errors as in ``directions_needed``.
    """
    _check(rate, per_direction, icc, correlation, level)
    _check_power(power)

    def lacking(change: float) -> float:
        return power_at(directions, rate, change, per_direction, icc, correlation, level=level) - power

    def smallest(largest: float) -> float:
        if largest == 0 or lacking(largest) < 0:
            return math.nan
        return float(brentq(lacking, 1e-9 * largest, largest, xtol=1e-12))

    return smallest(-rate), smallest(1 - rate)


def _scatter(rate: float, change: float, correlation: float) -> tuple[float, float]:
    """Standard deviation of one pair's difference when nothing changes, and under the change."""
    low, high = sorted((rate, min(1.0, max(0.0, rate + change))))
    product = math.sqrt(low * (1 - low) * high * (1 - high))
    largest = low * (1 - high) / product if product else 0.0  # the rarer event never without the other
    smallest = max(-low * high, -(1 - low) * (1 - high)) / product if product else 0.0
    correlation = min(max(correlation, smallest), largest)
    mean = rate + change / 2
    alternative = low * (1 - low) + high * (1 - high) - 2 * correlation * product
    return math.sqrt(2 * mean * (1 - mean) * (1 - correlation)), math.sqrt(max(0.0, alternative))


def _effect(per_direction: int, icc: float) -> float:
    """The design effect: how many pairs of a direction are worth one."""
    return 1 + (per_direction - 1) * icc


def _quantile(level: float) -> float:
    return float(-ndtri(level / 2))


def _estimation(level: float) -> float:
    """Directions that the estimated scatter costs."""
    return _quantile(level) ** 2 / 2


def _check(rate: float, per_direction: int, icc: float, correlation: float, level: float) -> None:
    if not 0 <= rate <= 1:
        raise UserError("a rate lies in 0 to 1", rate)
    if per_direction < 1:
        raise UserError("a direction has at least one pair", per_direction)
    if not 0 <= icc <= 1:
        raise UserError("the ICC lies in 0 to 1", icc, "Estimate it from a study (pilot), or assume a value")
    if not -1 <= correlation <= 1:
        raise UserError("the correlation of pairs lies in -1 to 1", correlation, "Take 0 to be on the safe side")
    if not 0 < level < 1:
        raise UserError("the level of a test lies between 0 and 1", level)


def _check_power(power: float) -> None:
    if not 0.5 <= power < 1:
        raise UserError("the power is at least 0.5 and below 1", power)


def _check_change(rate: float, change: float) -> None:
    if change == 0 or not -1e-12 <= rate + change <= 1 + 1e-12:
        raise UserError("a change is not 0 and ends at a rate from 0 to 1", f"{change:+g} from {rate:g}")
