"""The model of one direction's response: how its mean score falls with the boost, on a grid that makes it a lookup.

    mean score / S = e + (1 - 2 e) sigmoid(c - (x - t) / w)        x = log boost

S is the mean score without steering, t the log of the threshold, w the width of the fall in log boost, e = 0.01 a
share of surprises that keeps any single score from ruling a curve out, and c the constant that makes the mean score
exactly the target at x = t. So t *is* the threshold whatever the width.

A score y enters as q = y / S through the quasi-likelihood q log m + (1 - q) log(1 - m), m the modelled share
(fractional logistic regression, Papke & Wooldridge 1996). Its estimating equation is unbiased for the mean whether
scores are all-or-nothing, graded, or in between; how sharp it is, is learnt as a dispersion by the caller.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SURPRISE = 0.01
POINTS = 321
"""Boosts that can be asked, evenly spaced in log boost from the lower to the upper bound."""
MARGIN = 60
"""Grid points beyond either bound: a threshold can be out there, and then the direction cannot be calibrated."""
WIDTHS: Float64 = np.geomspace(0.05, 1.6, 8)
"""Widths w considered. At 0.05 the score falls from 80 to 20 % of S within 15 % of boost, at 1.6 within a factor 85."""


class CurveGrid:
    """All curves on a grid: index [w, t] with x as a third coordinate. Thresholds and boosts share the grid points.

    Args:
        lower, upper: bounds of the boost, 0 < lower < upper.
        share: target as a share of S, SURPRISE < share < 1 - SURPRISE.
    """

    def __init__(self, lower: float, upper: float, share: float) -> None:
        step = math.log(upper / lower) / (POINTS - 1)
        self.size = POINTS + 2 * MARGIN
        self.first, self.last = MARGIN, MARGIN + POINTS - 1
        """Grid indices of the two bounds."""
        self.x: Float64 = math.log(lower) + step * np.arange(-MARGIN, self.size - MARGIN, dtype=np.float64)
        """Log boost of each grid point, shape [size]."""
        self.share = share
        constant = logit((share - SURPRISE) / (1 - 2 * SURPRISE))
        offsets = step * np.arange(self.size - 1, -self.size, -1)  # x - t, from the largest down
        m = SURPRISE + (1 - 2 * SURPRISE) * expit(constant - offsets / WIDTHS[:, None])
        self._m: Float32 = m.astype(np.float32)
        self._log_miss: Float32 = np.log1p(-m).astype(np.float32)
        self._log_odds: Float32 = (np.log(m) - np.log1p(-m)).astype(np.float32)
        self.asked = np.arange(self.first, self.last + 1, 2)
        """Grid indices at which the expected score is tabulated, shape [n_asked]."""
        self._expect: Float32 = np.stack([self.modelled(int(i)) for i in self.asked], axis=-1).reshape(
            -1, len(self.asked)
        )

    def _at(self, table: Float32, i: int) -> Float32:
        """The table's values at boost index i for every width and threshold: shape [widths, size]."""
        return table[:, self.size - 1 - i : 2 * self.size - 1 - i]

    def modelled(self, i: int) -> Float32:
        """Mean share m at boost index i for every width and threshold, shape [widths, size]."""
        return self._at(self._m, i)

    def log_likelihood(self, i: int, n: int, total: float) -> Float32:
        """Quasi-log-likelihood of n scores at boost index i whose shares q sum to ``total``: [widths, size]."""
        return np.float32(n) * self._at(self._log_miss, i) + np.float32(total) * self._at(self._log_odds, i)

    def expected(self, posterior: Float32) -> Float64:
        """Expected share at each of ``asked``, falling: posterior [n, widths, size] -> [n, n_asked]."""
        flat = posterior.reshape(len(posterior), -1)
        return (flat @ self._expect).astype(np.float64)

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
