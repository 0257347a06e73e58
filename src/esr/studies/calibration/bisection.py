"""The published search: probabilistic bisection (Waeber, Frazier & Henderson 2011), each direction by itself.

Over a grid of 10,000 boosts in [lower, upper] a density of the threshold starts as a normal one, cut at the bounds.
Every round asks at the posterior median and looks at the mean score s of its generations, as a share of 100:

    the threshold is above the median if s >= target, else below it
    p = chance that this is right = tail mass of Beta(1/2 + v s, 1/2 + v (1 - s)) on s's side of the target, v = 5
    density on the indicated side *= p, on the other side *= 1 - p, at the median itself *= sqrt(p (1 - p))

The answer is the posterior median. Facts of arXiv 2602.06941 and its released settings.
Its interval is not calibrated: p speaks of the sample's side of the target, not of where the curve crosses it, and
the mean of a round is trusted alike whatever its scatter. In simulation (``benchmarks/calibration.py``) the 95 %
interval holds the true threshold of 88 % of directions with all-or-nothing scores at 10 x 5 generations, of 63 % at
20 x 5 and of 14 % at 10 x 1, and of 99.8 % with graded ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincc

from esr.errors import UserError
from esr.studies.calibration.evidence import Evidence
from esr.studies.calibration.records import Calibration, CalibrationSettings, Probe
from esr.studies.calibration.rounds import Round, mean, six_digits

GRID_POINTS = 10_000


def sign_probability(share: float, target: float, weight: float) -> float:
    """Chance that the mean score lies on the side of the target where the sample's lies.

    Args:
        share: observed mean score as a share of 100, 0..1.
        target: the target as a share of 100.
        weight: Beta observations the sample counts for.

    Never under 1/2: the two halves added pull the Beta towards the middle, so that a sample just short of the target
    can leave most of its mass beyond it. A p under 1/2 would then move the density against what was seen; 1/2 leaves
    it where it is. Never 1: a density of 0 could not come back.
    """
    a, b = 0.5 + weight * share, 0.5 + weight * (1 - share)
    tail = betaincc(a, b, target) if share >= target else betainc(a, b, target)
    return min(max(0.5, float(tail)), 1 - 1e-12)


class Bisection:
    """Calibrator that asks one probe per direction and round, for a fixed number of rounds.

    A round's mean over fewer scores than ``repeats`` (some unscored) counts for proportionally less; a round without
    any score leaves the density as it is and is spent. Memory: 80 kB per direction.
    """

    def __init__(self, settings: CalibrationSettings, n_directions: int) -> None:
        self._settings = settings
        self.grid: NDArray[np.float64] = np.linspace(settings.lower, settings.upper, GRID_POINTS)
        log_prior = -0.5 * ((self.grid - settings.prior_mean) / settings.prior_sd) ** 2
        prior = np.exp(log_prior - log_prior.max())  # a prior far narrower than the grid must not underflow to 0
        self.density: NDArray[np.float64] = np.tile(prior / prior.sum(), (n_directions, 1))
        """Posterior mass of each direction at each grid point, shape [n_directions, 10000], rows sum to 1."""
        self._evidence = [Evidence() for _ in range(n_directions)]
        self._number = 0
        self._medians: list[int] = []  # grid index asked at in the current round, by direction
        self._round = self._next()

    def ask(self) -> list[Probe]:
        """The probes of the current round that are not told yet; empty when finished."""
        return self._round.open

    def tell(self, probe: Probe, scores: Sequence[float]) -> None:
        """Give the scores of one probe (0-100; unscored generations left out, so possibly none)."""
        self._round.tell(probe, scores)
        if self._round.complete:
            for told, values in self._round.told():
                self._update(told, values)
            self._number += 1
            self._round = self._next()

    def results(self) -> list[Calibration]:
        """What is known now, one per direction in order. Raises UserError before the last round is told."""
        if self._number < self._settings.rounds:
            raise UserError(
                "a calibration has results when it is finished",
                f"{len(self.ask())} probes of round {self._number} still open",
                "Tell every probe that ask() returns until it returns none",
            )
        return [self._result(j) for j in range(len(self.density))]

    def quantile(self, direction: int, q: float) -> int:
        """Index of the first grid point at which the posterior mass reaches q."""
        mass = np.cumsum(self.density[direction])
        return int(np.searchsorted(mass, q * mass[-1]))

    def _next(self) -> Round:
        if self._number == self._settings.rounds:
            return Round([])
        self._medians = [self.quantile(j, 0.5) for j in range(len(self.density))]
        boosts = self.grid[self._medians]
        repeats = self._settings.repeats
        return Round([Probe(j, six_digits(float(b)), self._number, repeats) for j, b in enumerate(boosts)])

    def _update(self, probe: Probe, scores: tuple[float, ...]) -> None:
        self._evidence[probe.direction].add(probe.boost, scores, probe.repeats)
        if not scores:
            return
        share, target = mean(scores) / 100, self._settings.target / 100
        p = sign_probability(share, target, self._settings.sign_weight * len(scores) / probe.repeats)
        at = self._medians[probe.direction]
        density = self.density[probe.direction]
        below, above = (1 - p, p) if share >= target else (p, 1 - p)
        density[:at] *= below
        density[at] *= np.sqrt(p * (1 - p))
        density[at + 1 :] *= above
        density /= density.sum()

    def _result(self, direction: int) -> Calibration:
        low, answer, high = (float(self.grid[self.quantile(direction, q)]) for q in (0.025, 0.5, 0.975))
        reason = self._unsupported(self._evidence[direction], answer)
        return Calibration(
            threshold=None if reason else answer,
            low=low,
            high=high,
            predicted=None,
            generations=self._evidence[direction].generations,
            status="uncalibrated" if reason else "calibrated",
            reason=reason,
            stopped="rounds spent",
        )

    def _unsupported(self, evidence: Evidence, answer: float) -> str:
        """Why the answer does not stand: nothing scored, the target never crossed, or the scores contradict it.

        Ten rounds of "higher" end where the prior's tail ends, which may be far inside the bounds: so what matters is
        that some boost was seen on either side of the target, not how near the answer is to a bound.
        """
        s = self._settings
        means = {boost: mean(scores) for boost, scores in evidence.scores.items()}
        if not means:
            return f"none of {evidence.generations} generations was scored"
        if min(means.values()) >= s.target:
            top = max(means)
            return (
                f"mean score {means[top]:.0f} at the highest boost tried, {top:.4g}, "
                f"stays above the target {s.target:g} (upper bound {s.upper:g})"
            )
        if max(means.values()) < s.target:
            bottom = min(means)
            return (
                f"mean score {means[bottom]:.0f} at the lowest boost tried, {bottom:.4g}, "
                f"is already below the target {s.target:g} (lower bound {s.lower:g})"
            )
        return evidence.contradiction(answer, s.target)
