"""The model of one direction's response: how its mean score falls with the boost, on a grid that makes it a lookup.

    mean score / S = e + (1 - 2 e) g((x - a) / w)        x = log boost

S is the mean score without steering, a the log boost of the middle of the fall, w its width in log boost and e = 0.01 a
share of surprises that keeps any single score from ruling a curve out. g is one of three shapes: the logistic, a late
collapse (log-log: falls slowly, then all at once) and a long tail (complementary log-log: at once, then slowly). Each
is 1/2 at 0 with the logistic's slope there, so that a and w mean the same in all. The threshold is where a curve falls
through the target. Curves are told apart by their middle, not by their threshold, because on the organism it is the
middle that has nothing to do with the width (``benchmarks/surrogate.py``): steep or not, directions that push alike
meet there.

A score y enters as q = y / S through the quasi-likelihood q log m + (1 - q) log(1 - m), m the modelled share
(fractional logistic regression, Papke & Wooldridge 1996). Its estimating equation is unbiased for the mean whether
scores are all-or-nothing, graded, or in between; how sharp it is, is learnt as a dispersion by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Shape = Callable[[Float64], Float64]
"""u -> g(u): falls from 1 to 0."""
_LOG2 = math.log(2)
_SPEED = 1 / (2 * _LOG2)  # gives both log-logs the logistic's slope at 1/2

SURPRISE = 0.01
POINTS = 241
"""Boosts that can be asked, evenly spaced in log boost from the lower to the upper bound."""
MARGIN = 40
"""Grid points beyond either bound for the middle of the fall. A threshold can be out there, and then the direction
cannot be calibrated."""
WIDTHS: Float64 = np.geomspace(0.06, 1.6, 7)
"""Widths w. At 0.06 a logistic falls from 80 to 20 % of S within 18 % of boost, at 1.6 within a factor 85."""


def logistic(u: Float64) -> Float64:
    """Symmetric."""
    return expit(-u)


def late_collapse(u: Float64) -> Float64:
    """Log-log: falls slowly, then all at once."""
    return np.exp(-_LOG2 * np.exp(np.clip(_SPEED * u, -30, 30)))


def long_tail(u: Float64) -> Float64:
    """Complementary log-log: falls at once, then slowly."""
    return -np.expm1(-_LOG2 * np.exp(-np.clip(_SPEED * u, -30, 30)))


SHAPES: tuple[Shape, ...] = (logistic, late_collapse, long_tail)


class CurveGrid:
    """All curves on a grid: index [kind, a] with x as a third coordinate. Middles and boosts share the grid points.
    A kind is a shape with a width: kind = shape * widths + width.

    Args:
        lower, upper: bounds of the boost, 0 < lower < upper.
        share: target as a share of S, SURPRISE < share < 1 - SURPRISE.
        shapes, widths: the curves considered.
    """

    def __init__(
        self,
        lower: float,
        upper: float,
        share: float,
        shapes: Sequence[Shape] = SHAPES,
        widths: Float64 = WIDTHS,
        surprise: float = SURPRISE,
    ) -> None:
        step = math.log(upper / lower) / (POINTS - 1)
        self.size = POINTS + 2 * MARGIN
        self.first, self.last = MARGIN, MARGIN + POINTS - 1
        """Grid indices of the two bounds."""
        self.x: Float64 = math.log(lower) + step * np.arange(-MARGIN, self.size - MARGIN, dtype=np.float64)
        """Log boost of each grid point, shape [size]."""
        self.share = share
        self.shapes, self.log_widths = len(shapes), np.log(widths)
        offsets = step * np.arange(self.size - 1, -self.size, -1)  # x - a, from the largest down
        scaled = offsets / widths[:, None]
        m = np.concatenate([surprise + (1 - 2 * surprise) * shape(scaled) for shape in shapes])
        m = np.clip(m, 1e-4, 1 - 1e-4)
        self._m: Float32 = m.astype(np.float32)
        self._log_miss: Float32 = np.log1p(-m).astype(np.float32)
        self._log_odds: Float32 = (np.log(m) - np.log1p(-m)).astype(np.float32)
        self.asked = np.arange(self.first, self.last + 1, 2)
        """Grid indices at which the expected score is tabulated, shape [n_asked]."""
        self._expect: Float32 = np.stack([self.modelled(int(i)) for i in self.asked], axis=-1).reshape(
            -1, len(self.asked)
        )
        self._below: Float32 = (self._expect <= share).astype(np.float32)

    @property
    def kinds(self) -> int:
        """Number of kinds."""
        return len(self._m)

    def _at(self, table: Float32, i: int) -> Float32:
        """The table's values at boost index i for every kind and middle: shape [kinds, size]."""
        return table[:, self.size - 1 - i : 2 * self.size - 1 - i]

    def modelled(self, i: int) -> Float32:
        """Mean share m at boost index i for every kind and middle, shape [kinds, size]."""
        return self._at(self._m, i)

    def log_likelihood(self, i: int, n: int, total: float) -> Float32:
        """Quasi-log-likelihood of n scores at boost index i whose shares q sum to ``total``: [kinds, size]."""
        return np.float32(n) * self._at(self._log_miss, i) + np.float32(total) * self._at(self._log_odds, i)

    def expected(self, posterior: Float32) -> Float64:
        """Expected share at each of ``asked``, falling: posterior [n, kinds, size] -> [n, n_asked]."""
        return np.asarray(posterior.reshape(len(posterior), -1).astype(np.float64) @ self._expect)

    def threshold_mass(self, posterior: Float32) -> Float64:
        """Chance that the threshold is at most each of ``asked``: posterior [n, kinds, size] -> [n, n_asked]."""
        return np.asarray(posterior.reshape(len(posterior), -1).astype(np.float64) @ self._below)

    def crossing(self, expected: Float64, level: float) -> Float64:
        """Where the expected share falls through ``level``: a fractional grid index within the bounds, shape [n].

        Interpolated in the logit of the share; the bound itself where the level is not reached within the bounds.
        """
        rows = np.arange(len(expected))
        right = np.clip((expected >= level).sum(axis=1), 1, len(self.asked) - 1)
        a, b = logit(expected[rows, right - 1]), logit(expected[rows, right])
        step = np.clip((a - logit(level)) / np.maximum(a - b, 1e-9), 0, 1)
        crossing: Float64 = self.asked[0] + 2.0 * (right - 1 + step)
        return crossing

    def interpolated(self, expected: Float64, rows: NDArray[np.int64], i: NDArray[np.int64]) -> Float64:
        """Expected share of direction ``rows[k]`` at boost index ``i[k]``."""
        left = np.minimum((i - self.first) // 2, len(self.asked) - 2)
        step = (i - self.first) / 2 - left
        value: Float64 = expected[rows, left] * (1 - step) + expected[rows, left + 1] * step
        return value
