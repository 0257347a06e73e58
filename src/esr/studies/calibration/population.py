"""What the directions of a study have in common, learnt from all of them as scores come in (empirical Bayes).

    log boost of the middle of the fall ~ (1 - o) Normal(centre + slope z, spread) + o Uniform(grid)
    log width ~ Normal(width, width_spread)        shape ~ one for nearly all directions

z is a *hint*: what a surrogate says about the direction beforehand, in log boost. Without one there is no slope. Of
several hints the one that predicts best is used, as the scores say. The uniform share o is what lets a direction that
is unlike the others be unlike them: its own scores win.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from esr.studies.calibration.curve import CurveGrid, Float32, Float64

OUTER, INNER = 2, 6
# How many directions' worth of weight the first guess keeps.
_CENTRE_WEIGHT, _SPREAD_WEIGHT, _OUTLIER_WEIGHT, _SLOPE_WEIGHT = 0.5, 2.0, 20.0, 4.0
_LEAST_WIDTH_SPREAD = 0.3
_ANY_SHAPE = 0.15  # share of directions whose shape may be any, whatever that of the others
_LEAST_MASS = 1e-10  # keeps products within the range of float32


class Middles:
    """The distribution of the middles of the fall (log boost) over directions, by one hint.

    Args:
        x: log boost of the grid points, shape [size].
        mean, sd: first guess of the mean and standard deviation over directions, in boost units; taken for a
            lognormal distribution with these two moments.
        z: the hint, shape [n]; its mean over directions does not matter. None: there is none.
        n: number of directions.
    """

    def __init__(self, x: Float64, mean: float, sd: float, z: Float64 | None, n: int) -> None:
        variance = math.log1p((sd / mean) ** 2)
        self._x, self._step = x, float(x[1] - x[0])
        self.z: Float64 = np.zeros(n) if z is None else z - z.mean()
        self._guess = (math.log(mean) - variance / 2, max(self._step, math.sqrt(variance)))
        self.centre, self.spread = self._guess
        self._sloped = z is not None
        self.slope = 1.0 if self._sloped else 0.0
        self.outliers = 1 / _OUTLIER_WEIGHT

    @property
    def predicted(self) -> Float64:
        """Middle expected of each direction before its own scores, shape [n]."""
        return self.centre + self.slope * self.z

    def prior(self, rows: NDArray[np.bool_] | slice = slice(None)) -> Float64:
        """Prior mass of the directions' middles on the grid, shape [n, size]."""
        return self._core(self.z[rows]) + self.outliers / len(self._x)

    def learn(self, likelihood: Float64, rows: NDArray[np.bool_]) -> float:
        """Some EM steps from the likelihoods [n, size] of the directions ``rows``; returns their log evidence."""
        z, n = self.z[rows], len(likelihood)
        guess, spread = self._guess
        weight = _SLOPE_WEIGHT * float((z * z).mean()) + 1e-12
        for _ in range(INNER):
            core = self._core(z)
            prior = core + self.outliers / len(self._x)
            mass = likelihood * prior
            mass *= (core / prior) / mass.sum(axis=1, keepdims=True)
            own = mass.sum(axis=1)  # chance that a direction is like the others
            first, second, members = mass @ self._x, mass @ self._x**2, float(own.sum())
            self.outliers = (n - members + 1) / (n + _OUTLIER_WEIGHT)
            if self._sloped:
                found = float(((first - own * self.centre) * z).sum())
                self.slope = (found + weight) / (float((own * z * z).sum()) + weight)
            total = float((first - own * self.slope * z).sum())
            self.centre = (total + _CENTRE_WEIGHT * guess) / (members + _CENTRE_WEIGHT)
            middle = self.centre + self.slope * z
            scatter = float((second - 2 * middle * first + own * middle**2).sum()) + _SPREAD_WEIGHT * spread**2
            self.spread = max(self._step, math.sqrt(max(scatter, 0.0) / (members + _SPREAD_WEIGHT)))
        return float(np.log((likelihood * self.prior(rows)).sum(axis=1)).sum())

    def _core(self, z: Float64) -> Float64:
        middle = self.centre + self.slope * z
        core: Float64 = np.exp(-0.5 * ((self._x - middle[:, None]) / self.spread) ** 2)
        core *= (1 - self.outliers) / np.maximum(core.sum(axis=1, keepdims=True), 1e-300)
        return core


class Population:
    """The distribution of (middle, log width, shape) over directions, on the curve grid.

    Args:
        grid: the curves.
        n: number of directions.
        mean, sd: as for ``Middles``.
        hints: shape [hints, n], the one to begin with first; None: there is none.
    """

    def __init__(self, grid: CurveGrid, n: int, mean: float, sd: float, hints: Float64 | None = None) -> None:
        self._log_widths = grid.log_widths
        self._candidates = [Middles(grid.x, mean, sd, z, n) for z in ([None] if hints is None else hints)]
        self.hint = 0
        """Which hint predicts best so far."""
        self._width_guess = (math.log(0.35), 0.5)
        self.width, self.width_spread = self._width_guess
        self.shapes: Float64 = np.full(grid.shapes, 1 / grid.shapes)

    @property
    def middles(self) -> Middles:
        """The distribution of the middles by the best hint."""
        return self._candidates[self.hint]

    def learn(self, likelihood: Float32, rows: NDArray[np.bool_]) -> None:
        """Move the numbers towards the maximum posterior given the directions' likelihoods (some EM steps).

        Args:
            likelihood: shape [n, kinds, size], each direction's scaled to a maximum of 1.
            rows: which directions to learn from, bool [n].
        """
        # in double precision: the last bits of a product depend on where its arrays lie in memory, and a study that is
        # killed and gone on with must come to the same six digits
        exact = (likelihood if rows.all() else likelihood[rows]).astype(np.float64)
        for _ in range(OUTER):
            by_middle = np.matmul(self._kinds(), exact)
            self.hint = int(np.argmax([middles.learn(by_middle, rows) for middles in self._candidates]))
            by_kind = np.matmul(exact, self.middles.prior(rows)[:, :, None])[:, :, 0]
            for _ in range(INNER):
                self._learn_kinds(by_kind)

    def posterior(self, likelihood: Float32) -> Float32:
        """Each direction's posterior mass over [kinds, size]: shape [n, kinds, size], sums to 1 per direction."""
        posterior = likelihood * self._kinds().astype(np.float32)[:, None]
        posterior *= self.middles.prior().astype(np.float32)[:, None, :]
        posterior /= posterior.sum(axis=(1, 2), keepdims=True)
        return posterior

    def _widths(self) -> Float64:
        mass: Float64 = np.exp(-0.5 * ((self._log_widths - self.width) / self.width_spread) ** 2)
        mass = np.maximum(mass, _LEAST_MASS)
        mass /= mass.sum()
        return mass

    def _kinds(self) -> Float64:
        return np.outer(self.shapes, self._widths()).reshape(-1)

    def _learn_kinds(self, likelihood: Float64) -> None:
        n, (width, spread) = len(likelihood), self._width_guess
        by_shape = likelihood.reshape(n, len(self.shapes), -1) @ self._widths()
        by_shape = (1 - _ANY_SHAPE) * by_shape + _ANY_SHAPE * by_shape.mean(axis=1, keepdims=True)
        log_evidence = np.log(by_shape).sum(axis=0)
        evidence = np.exp(log_evidence - log_evidence.max())
        self.shapes = (1 - _ANY_SHAPE) * evidence / evidence.sum() + _ANY_SHAPE / len(evidence)
        mass = likelihood * self._kinds()
        mass /= mass.sum(axis=1, keepdims=True)
        per_width = mass.sum(axis=0).reshape(len(self.shapes), -1).sum(axis=0)
        self.width = (float((per_width * self._log_widths).sum()) + _CENTRE_WEIGHT * width) / (n + _CENTRE_WEIGHT)
        scatter = float((per_width * (self._log_widths - self.width) ** 2).sum()) + _SPREAD_WEIGHT * spread**2
        self.width_spread = max(_LEAST_WIDTH_SPREAD, math.sqrt(scatter / (n + _SPREAD_WEIGHT)))
