"""What the directions of a study have in common, learnt from all of them as scores come in (empirical Bayes).

    log threshold ~ (1 - o) Normal(centre, spread) + o Uniform(grid)       log width ~ Normal(width, width_spread)

The uniform share o is what lets a direction that is unlike the others be unlike them: its own scores win.
"""

from __future__ import annotations

import math

import numpy as np

from esr.studies.calibration.curve import WIDTHS, Float32, Float64

OUTER, INNER = 3, 6
_LOG_WIDTHS = np.log(WIDTHS)
# How many directions' worth of weight the first guess keeps.
_CENTRE_WEIGHT, _SPREAD_WEIGHT, _OUTLIER_WEIGHT = 0.5, 2.0, 20.0
_LEAST_WIDTH_SPREAD = 0.15
_LEAST_MASS = 1e-10  # keeps products within the range of float32


class Population:
    """The distribution of (log threshold, log width) over directions, on the curve grid.

    Args:
        x: log boost of the grid points, shape [size].
        mean, sd: first guess of the thresholds' mean and standard deviation over directions, in boost units; taken
            for a lognormal distribution with these two moments.
    """

    def __init__(self, x: Float64, mean: float, sd: float) -> None:
        variance = math.log1p((sd / mean) ** 2)
        self._x = x
        self._step = float(x[1] - x[0])
        self._guess = (math.log(mean) - variance / 2, max(self._step, math.sqrt(variance)))
        self.centre, self.spread = self._guess
        self.outliers = 1 / _OUTLIER_WEIGHT
        self._width_guess = (math.log(0.35), 0.5)
        self.width, self.width_spread = self._width_guess

    def learn(self, likelihood: Float32) -> None:
        """Move the six numbers towards the maximum posterior given the directions' likelihoods (some EM steps).

        Args:
            likelihood: shape [n, widths, size], each direction's scaled to a maximum of 1.
        """
        for _ in range(OUTER):
            thresholds = np.einsum("nwt,w->nt", likelihood, self._widths().astype(np.float32)).astype(np.float64)
            for _ in range(INNER):
                self._learn_thresholds(thresholds)
            widths = np.einsum("nwt,t->nw", likelihood, self._thresholds().astype(np.float32)).astype(np.float64)
            for _ in range(INNER):
                self._learn_widths(widths)

    def posterior(self, likelihood: Float32) -> Float32:
        """Each direction's posterior mass over [widths, size]: shape [n, widths, size], sums to 1 per direction."""
        prior = np.outer(self._widths(), self._thresholds()).astype(np.float32)
        posterior = likelihood * prior
        posterior /= posterior.sum(axis=(1, 2), keepdims=True)
        return posterior

    def _core(self) -> Float64:
        core: Float64 = np.exp(-0.5 * ((self._x - self.centre) / self.spread) ** 2)
        core *= (1 - self.outliers) / core.sum()
        return core

    def _thresholds(self) -> Float64:
        return self._core() + self.outliers / len(self._x)

    def _widths(self) -> Float64:
        mass: Float64 = np.exp(-0.5 * ((_LOG_WIDTHS - self.width) / self.width_spread) ** 2)
        mass = np.maximum(mass, _LEAST_MASS)
        mass /= mass.sum()
        return mass

    def _learn_thresholds(self, likelihood: Float64) -> None:
        n, core, prior = len(likelihood), self._core(), self._thresholds()
        mass = likelihood * prior
        mass *= (core / prior) / mass.sum(axis=1, keepdims=True)
        per_point = mass.sum(axis=0)
        members = per_point.sum()
        centre, spread = self._guess
        self.outliers = (n - members + 1) / (n + _OUTLIER_WEIGHT)
        self.centre = float((per_point * self._x).sum() + _CENTRE_WEIGHT * centre) / (members + _CENTRE_WEIGHT)
        scatter = (per_point * (self._x - self.centre) ** 2).sum() + _SPREAD_WEIGHT * spread**2
        self.spread = max(self._step, math.sqrt(scatter / (members + _SPREAD_WEIGHT)))

    def _learn_widths(self, likelihood: Float64) -> None:
        mass = likelihood * self._widths()
        per_width = (mass / mass.sum(axis=1, keepdims=True)).sum(axis=0)
        n, (width, spread) = len(likelihood), self._width_guess
        self.width = (float((per_width * _LOG_WIDTHS).sum()) + _CENTRE_WEIGHT * width) / (n + _CENTRE_WEIGHT)
        scatter = float((per_width * (_LOG_WIDTHS - self.width) ** 2).sum()) + _SPREAD_WEIGHT * spread**2
        self.width_spread = max(_LEAST_WIDTH_SPREAD, math.sqrt(scatter / (n + _SPREAD_WEIGHT)))
