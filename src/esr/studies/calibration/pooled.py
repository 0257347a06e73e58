"""Calibration that shares what it learns: every direction's scores sharpen what is expected of all others.

A round is asked in up to three steps, so that most of its scores are placed by what those before taught. Each step, for
all directions at once: likelihoods of the scores so far (``curve``), the population they suggest (``population``), each
direction's posterior under it, and from that the boosts and the directions where scores tell most about the mean score
at the answer (``design``). While a direction is little known these boosts lie far apart; as it gets known they close in
on the threshold, where the curve's shape matters no more. A round is ``repeats`` scores per direction on average; no
direction gets more than those of all ``rounds``.

The answer is the boost at which the *expected* score is the target, which makes the error in score points zero on
average. A direction stops when its true mean score there is known to within the tolerance, when it is out of reach of
the bounds, or when its rounds are spent. In simulation (``benchmarks/calibration.py``) the 95 % interval holds the true
threshold of 93-97 % of directions from 15 generations on, also of curves of another shape than the modelled ones.

What can be saved by sharing ends at the scatter of a direction's own scores: where falls are steep against the spread
of the thresholds, the others tell little. Hints (``surrogate``) narrow that spread before anything is generated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from esr.errors import UserError
from esr.studies.calibration.curve import CurveGrid, Float32, Float64
from esr.studies.calibration.design import LEVELS, deal, place
from esr.studies.calibration.evidence import Evidence
from esr.studies.calibration.population import Population
from esr.studies.calibration.records import Calibration, CalibrationSettings, Probe, Stopped
from esr.studies.calibration.rounds import Round, mean, six_digits

MOST_STEPS = 3
"""Steps of a round; fewer where these would be of less than two generations, but for one."""
EVEN_STEPS = 3
"""Steps in which all directions get the same: what is known of any rests on the first guess of all."""
MOST_AT_ONCE = 3
"""Times its even share of a step that a direction may get."""
LEAST_STEPS = 9
"""Steps before any direction may stop: before, what is known of all is still mostly the first guess."""
OUT_OF_REACH = 0.99
"""Posterior mass beyond a bound at which a direction is given up."""
UNKNOWN = 20.0
"""A posterior standard deviation of the mean score, in points, above which an answer is none."""
LOWEST_SHARE, HIGHEST_SHARE = 0.05, 0.95
"""The target as a share of the unsteered score: outside of these the fall to it is not seen in scores."""
UNSTEERED_GENERATIONS = 30
LEAST_LOWER = 0.01
"""Without a lower bound, the log grid starts at this share of the prior mean."""
_DISPERSION_WEIGHT = 10.0  # scores' worth of weight of the first guess, all-or-nothing scores
_DISPERSION_BOUNDS = (0.03, 1.5)
_FLOOR = -45.0  # lowest log-likelihood kept: nothing is as slow as numbers too small for float32
_FREEDOM = 1.2  # parameters a direction effectively fits for itself


class Pooled:
    """Calibrator that learns one population over all directions. Memory: about 100 kB per direction.

    Args:
        unsteered_score: mean score without steering, > target / 0.95; None asks for 30 unsteered generations
            (boost 0) in the first round, charged to the directions they are asked under.
        hints: what a surrogate says of each direction's log threshold, up to a line: shape [hints, n_directions], the
            one to begin with first; None: there is none.
    """

    def __init__(
        self,
        settings: CalibrationSettings,
        n_directions: int,
        unsteered_score: float | None,
        hints: Float64 | None = None,
    ) -> None:
        self._settings = settings
        self._n = n_directions
        self._hints = hints
        self._lower = max(settings.lower, LEAST_LOWER * settings.prior_mean)
        self._evidence = [Evidence() for _ in range(n_directions)]
        self._unsteered_scores: list[float] = []
        self._hopeless = ""
        self._stopped: list[Stopped] = ["rounds spent"] * n_directions
        self._active = np.ones(n_directions, dtype=bool)
        self._left = np.full(n_directions, settings.rounds * settings.repeats)  # generations a direction may still get
        self._within = self._active.copy()  # the population is that of directions with a threshold within the bounds
        self._number = 0
        self._seen: list[tuple[int, int, int, float, float]] = []  # direction, boost index, n, sum q, sum q^2
        likely = max((settings.target + 100) / 2, settings.target / HIGHEST_SHARE)
        self._start(likely if unsteered_score is None else unsteered_score)
        self._round = self._next(ask_unsteered=unsteered_score is None)

    def _start(self, unsteered: float) -> None:
        s = self._settings
        self.unsteered = unsteered
        self._grid = self._make_grid(s.target / unsteered)
        self.population = self._make_population()
        self.dispersion = 1.0
        self._log_likelihood: Float32 = np.zeros((self._n, *self._grid.modelled(0).shape), dtype=np.float32)
        self._infer()

    def _make_grid(self, share: float) -> CurveGrid:
        return CurveGrid(self._lower, self._settings.upper, share)

    def _make_population(self) -> Population:
        return Population(self._grid, self._n, self._settings.prior_mean, self._settings.prior_sd, self._hints)

    def ask(self) -> list[Probe]:
        """The probes of the current round that are not told yet; empty when finished."""
        return self._round.open

    def tell(self, probe: Probe, scores: Sequence[float]) -> None:
        """Give the scores of one probe (0-100; unscored generations left out, so possibly none)."""
        self._round.tell(probe, scores)
        if not self._round.complete:
            return
        self._take(self._round)
        self._number += 1
        self._round = self._next(ask_unsteered=False)

    def answers(self) -> Float64:
        """The boost at which each direction's expected score is the target by what is known now, shape [n]."""
        return self._crossings(self._expected)

    def _crossings(self, expected: Float64) -> Float64:
        at = self._grid.crossing(expected, self._grid.share)
        return np.asarray(np.exp(np.interp(at, np.arange(self._grid.size), self._grid.x)))

    def _foretold(self) -> list[float | None]:
        """The answers as they would be by the hints alone, with all that the scores taught about their worth."""
        if self._hints is None:
            return [None] * self._n
        prior = self.population.posterior(np.ones_like(self._posterior))
        return [six_digits(float(boost)) for boost in self._crossings(self._grid.expected(prior))]

    def results(self) -> list[Calibration]:
        """What is known now, one per direction in order. Raises UserError while probes are open."""
        if self.ask():
            raise UserError(
                "a calibration has results when it is finished",
                f"{len(self.ask())} probes of round {self._number} still open",
                "Tell every probe that ask() returns until it returns none",
            )
        at = self._grid.crossing(self._expected, self._grid.share)
        answers = self.answers()
        mass = self._grid.threshold_mass(self._posterior)
        doubt, foretold = self._doubt(at), self._foretold()
        return [self._result(j, float(answers[j]), mass[j], float(doubt[j]), foretold[j]) for j in range(self._n)]

    def _next(self, *, ask_unsteered: bool) -> Round:
        size = self._size(self._number)
        if self._hopeless or not size:
            return Round([])
        probes = []
        if ask_unsteered:
            each = -(-UNSTEERED_GENERATIONS // self._n)
            probes = [Probe(j, 0.0, 0, each) for j in range(min(self._n, UNSTEERED_GENERATIONS))]
        grid = self._grid
        answers = np.rint(grid.crossing(self._expected, grid.share)).astype(int)
        candidates = np.stack([np.rint(grid.crossing(self._expected, level)).astype(int) for level in LEVELS], axis=1)
        active = np.flatnonzero(self._active)
        most = np.minimum(self._left[active], size * (1 if self._number < EVEN_STEPS else MOST_AT_ONCE))
        placed = [
            place(grid, self._posterior[j], candidates[j], answers[j], self.dispersion, n)
            for j, n in zip(active, most, strict=True)
        ]
        counts = deal([worths for _, worths in placed], size * len(active))
        for j, (places, _), count in zip(active, placed, counts, strict=True):
            self._left[j] -= count
            turns = Counter(self._boost(i) for i in places[:count])
            probes += [Probe(int(j), boost, self._number, n) for boost, n in sorted(turns.items())]
        return Round(probes)

    def _size(self, step: int) -> int:
        """Generations in a step, mean over active directions: a round's, evenly parted; 0 when the rounds are spent."""
        rounds, repeats = self._settings.rounds, self._settings.repeats
        steps = min(MOST_STEPS, -(-repeats // 2))
        return (repeats + step % steps) // steps if step < steps * rounds else 0

    def _boost(self, place: float) -> float:
        return six_digits(float(np.exp(self._grid.x[int(place)])))

    def _take(self, told: Round) -> None:
        for probe, scores in told.told():
            self._evidence[probe.direction].add(probe.boost, scores, probe.repeats)
            if probe.boost == 0:
                self._unsteered_scores += scores
        if any(p.boost == 0 for p in told.probes):
            self._hopeless = self._settle_unsteered()
            if self._hopeless:
                return
        for probe, scores in told.told():
            if scores and probe.boost > 0:
                self._learn(probe, scores)
        self._infer()
        self._retire()

    def _settle_unsteered(self) -> str:
        """Take the unsteered score from the first round; return why that is impossible, or an empty text."""
        target = self._settings.target
        if not self._unsteered_scores:
            return "no unsteered generation was scored, so the score to fall from is unknown"
        unsteered = mean(self._unsteered_scores)
        if target > HIGHEST_SHARE * unsteered:
            return f"mean score {unsteered:.0f} without steering leaves no fall to the target {target:g}"
        self._start(unsteered)
        return ""

    def _learn(self, probe: Probe, scores: tuple[float, ...]) -> None:
        i = int(np.argmin(np.abs(self._grid.x - np.log(probe.boost))))
        shares = [s / self.unsteered for s in scores]
        total = mean(shares) * len(shares)
        self._log_likelihood[probe.direction] += self._grid.log_likelihood(i, len(shares), total)
        self._seen.append((probe.direction, i, len(shares), total, sum(q * q for q in shares)))

    def _infer(self) -> None:
        """Posterior, population and dispersion from everything told so far."""
        likelihood = self._log_likelihood / np.float32(self.dispersion)
        likelihood -= likelihood.max(axis=(1, 2), keepdims=True)
        np.exp(np.maximum(likelihood, _FLOOR, out=likelihood), out=likelihood)
        if self._seen and self._within.any():
            self.population.learn(likelihood, self._within)
        self._posterior = self.population.posterior(likelihood)
        self._expected = self._grid.expected(self._posterior)
        mass = self._grid.threshold_mass(self._posterior)
        beyond = np.maximum(mass[:, 0], 1 - mass[:, -1])
        self._within = beyond < OUT_OF_REACH
        if self._seen:
            self.dispersion = self._dispersion()

    def _dispersion(self) -> float:
        """Variance of the scores around their expectation, relative to all-or-nothing scores of that expectation.

        About 1 when every response is either good or bad, far less when scores are graded: then a score says more.
        """
        rows, places, n, total, squares = (np.array(column) for column in zip(*self._seen, strict=True))
        m = self._grid.interpolated(self._expected, rows, places)
        scatter = (squares - 2 * m * total + n * m * m).sum()
        nominal = (n * m * (1 - m)).sum()
        free = max(0.5, 1 - _FREEDOM * len(np.unique(rows)) / n.sum())
        guess = _DISPERSION_WEIGHT * nominal / n.sum()
        return float(np.clip((scatter + guess) / (nominal * free + guess), *_DISPERSION_BOUNDS))

    def _doubt(self, at: Float64) -> Float64:
        """Posterior standard deviation of each direction's true mean score at grid position ``at``, in points."""
        doubt = np.empty(self._n)
        for j, i in enumerate(np.rint(at).astype(int)):
            m, p = self._grid.modelled(int(i)), self._posterior[j]
            centre = float((p * m).sum())
            doubt[j] = self.unsteered * np.sqrt(float((p * (m - centre) ** 2).sum()))
        return doubt

    def _retire(self) -> None:
        """Take the directions off the list that need no more generations. They do not come back."""
        if self._number + 1 < LEAST_STEPS:
            return
        doubt = self._doubt(self._grid.crossing(self._expected, self._grid.share))
        for j in np.flatnonzero(self._active):
            if not self._within[j]:
                self._stopped[j] = "out of reach"
            elif doubt[j] <= self._settings.tolerance:
                self._stopped[j] = "narrow"
        self._active &= (doubt > self._settings.tolerance) & self._within

    def _result(self, j: int, answer: float, mass: Float64, doubt: float, surrogate: float | None) -> Calibration:
        s, evidence = self._settings, self._evidence[j]
        low, high = np.exp(np.interp([0.025, 0.975], mass, self._grid.x[self._grid.asked]))
        reason = self._hopeless or self._unsupported(j, answer, doubt)
        return Calibration(
            threshold=None if reason else six_digits(answer),
            low=six_digits(float(np.clip(low, s.lower, s.upper))),
            high=six_digits(float(np.clip(high, s.lower, s.upper))),
            predicted=None if reason else s.target,
            generations=evidence.generations,
            status="uncalibrated" if reason else "calibrated",
            reason=reason,
            stopped=self._stopped[j],
            surrogate=surrogate,
        )

    def _unsupported(self, j: int, answer: float, doubt: float) -> str:
        """Why the answer does not stand: nothing scored, out of the bounds, too uncertain, or contradicted."""
        s, evidence, expected = self._settings, self._evidence[j], self._expected[j] * self.unsteered
        tried = sorted(b for b in evidence.scores if b > 0)
        if not tried:
            return f"none of {evidence.generations} generations was scored"
        if expected[-1] > s.target:
            top = evidence.scores[tried[-1]]
            return (
                f"expected score {expected[-1]:.0f} at the upper bound {s.upper:.4g} stays above the target "
                f"{s.target:g} ({mean(top):.0f} measured over {len(top)} at {tried[-1]:.4g}, the highest boost tried)"
            )
        if expected[0] < s.target:
            bottom = evidence.scores[tried[0]]
            return (
                f"expected score {expected[0]:.0f} at the lowest boost {self._lower:.4g} is below the target "
                f"{s.target:g} ({mean(bottom):.0f} measured over {len(bottom)} at {tried[0]:.4g}, the lowest tried)"
            )
        if doubt > UNKNOWN:
            return f"the mean score at {answer:.4g} is known only to ±{doubt:.0f} points (one standard deviation)"
        return evidence.contradiction(answer, s.target)
