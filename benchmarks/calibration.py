"""Error of the found threshold over judged generations spent: the published bisection against the pooled search.

    python benchmarks/calibration.py            # about a minute on one core
    python benchmarks/calibration.py --seeds 2  # quicker, noisier

Every direction is simulated: its true mean score falls with the boost along a known curve, single scores scatter
around it. The error of an answer is the *true* mean score at the boost found, minus the target of 30.

    rmse, bias   of that error, in score points
    coverage     share of directions whose true threshold lies within their own 95 % interval
    limit        sd of one score at the threshold / sqrt(judged): what n scores taken there tell without anything
                 known beforehand. Where few are spent, the pooled search is under it by what the others told it
    lost         share of directions declared uncalibrated; a few in a thousand lie beyond the upper bound indeed
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from esr.studies.calibration.calibrator import Calibrator, make_calibrator
from esr.studies.calibration.records import Calibration, CalibrationSettings, Method

Array = NDArray[np.float64]
TARGET, HIGH, LOW = 30.0, 88.0, 1.6
"""Target, mean score of a good response, mean score of one that was carried off."""


def logistic(u: Array, p: float) -> Array:
    """Share of good responses at u widths beyond the threshold; p at u = 0. Symmetric."""
    return expit(logit(p) - u)


def probit(u: Array, p: float) -> Array:
    """Symmetric with light tails; scaled to the logistic's slope in the middle."""
    return norm.cdf(norm.ppf(p) - u * math.sqrt(2 * math.pi) / 4)


def late_collapse(u: Array, p: float) -> Array:
    """Falls slowly, then all at once (complementary log-log)."""
    return 1 - np.exp(-np.exp(math.log(-math.log(1 - p)) - u))


def long_tail(u: Array, p: float) -> Array:
    """Falls at once, then slowly (log-log)."""
    return np.exp(-np.exp(math.log(-math.log(p)) + u))


def all_or_nothing(rng: np.random.Generator, mean: Array) -> Array:
    """88 +- 7 or near 0."""
    good = rng.random(mean.shape) < (mean - LOW) / (HIGH - LOW)
    high = HIGH + np.clip(7 * rng.standard_normal(mean.shape), HIGH - 100, 100 - HIGH)
    return np.where(good, high, np.abs(rng.standard_normal(mean.shape)) * LOW * math.sqrt(math.pi / 2))


def graded(rng: np.random.Generator, mean: Array) -> Array:
    """A share of the response is on topic: Beta of concentration 6 (sd 17 points at a mean of 30)."""
    return 100 * rng.beta(6 * mean / 100, 6 * (1 - mean / 100))


@dataclass(frozen=True)
class World:
    """A population of simulated directions and what the study expects of it."""

    name: str
    curve: Callable[[Array, float], Array] = logistic
    scores: Callable[[np.random.Generator, Array], Array] = all_or_nothing
    spread: float = 0.35
    """Standard deviation of the log threshold over directions."""
    width: float = 0.5
    """Median width of the fall, in log boost; varies over directions by a factor e^0.3."""
    prior: tuple[float, float, float] = (1.0, 1.0, 2.5)
    """Prior mean, prior sd and upper bound in units of the true mean threshold. Published: sd/mean 0.5-1, bound/mean
    2-14; that the prior mean is right is a gift to both methods, and one world takes it away."""


WORLDS = (
    World("all-or-nothing, logistic"),
    World("same, falls twice as steep", width=0.25),
    World("same, thresholds spread wider", spread=0.6, width=0.3, prior=(1.0, 1.0, 5.0)),
    World("same, prior twice too high", prior=(2.0, 1.0, 5.0)),
    World("all-or-nothing, probit", curve=probit),
    World("all-or-nothing, late collapse", curve=late_collapse),
    World("all-or-nothing, long tail", curve=long_tail),
    World("graded, logistic", scores=graded),
    World("graded, late collapse", scores=graded, curve=late_collapse),
)
MEDIAN = 10.0


@dataclass(frozen=True)
class Directions:
    """Simulated truth: one log threshold and one width per direction."""

    world: World
    thresholds: Array
    widths: Array

    @classmethod
    def draw(cls, world: World, n: int, rng: np.random.Generator) -> Directions:
        thresholds = math.log(MEDIAN) + world.spread * rng.standard_normal(n)
        return cls(world, thresholds, world.width * np.exp(0.3 * rng.standard_normal(n)))

    def mean(self, direction: NDArray[np.int64], boost: Array) -> Array:
        """True mean score; exactly the target at the threshold."""
        with np.errstate(divide="ignore"):
            u = (np.log(boost) - self.thresholds[direction]) / self.widths[direction]
        return LOW + (HIGH - LOW) * self.world.curve(u, (TARGET - LOW) / (HIGH - LOW))

    def settings(self, method: Method, **changes: float) -> CalibrationSettings:
        centre = MEDIAN * math.exp(self.world.spread**2 / 2)
        mean, sd, upper = (centre * f for f in self.world.prior)
        return CalibrationSettings(method=method, target=TARGET, upper=upper, prior_mean=mean, prior_sd=sd, **changes)


def run(directions: Directions, calibrator: Calibrator, rng: np.random.Generator) -> list[Calibration]:
    """Answer every probe from the simulated truth until the calibrator asks no more."""
    while probes := calibrator.ask():
        repeats = [p.repeats for p in probes]
        means = directions.mean(np.array([p.direction for p in probes]), np.array([p.boost for p in probes]))
        scores = directions.world.scores(rng, np.repeat(means, repeats))
        for probe, own in zip(probes, np.split(scores, np.cumsum(repeats)[:-1]), strict=True):
            calibrator.tell(probe, own.tolist())
    return calibrator.results()


@dataclass(frozen=True)
class Row:
    """One method in one world, over all seeds."""

    generations: float
    rmse: float
    bias: float
    coverage: float
    lost: float


def measure(world: World, method: Method, seeds: int, n: int = 200, **changes: float) -> Row:
    """One method on ``n`` directions of a world, over the seeds 0 .. seeds - 1. Changes are of the settings."""
    errors, covered, spent, lost = [], [], [], 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        directions = Directions.draw(world, n, rng)
        found = run(directions, make_calibrator(directions.settings(method, **changes), n, HIGH), rng)
        keep = np.array([j for j, c in enumerate(found) if c.threshold is not None])
        errors.append(directions.mean(keep, np.array([found[j].threshold for j in keep])) - TARGET)
        true = np.exp(directions.thresholds)
        covered += [c.low <= t <= c.high for c, t in zip(found, true, strict=True)]
        spent += [c.generations for c in found]
        lost += n - len(keep)
    error = np.concatenate(errors)
    rmse = math.sqrt(float((error**2).mean()))
    return Row(float(np.mean(spent)), rmse, float(error.mean()), float(np.mean(covered)), lost / (n * seeds))


PUBLISHED = (10, 5)
BISECTIONS = ((10, 1), (20, 1), PUBLISHED, (20, 5))
BUDGETS = (2, 4, 5, 7, 10)
"""Rounds of five generations that the pooled search is given when it may not stop early."""
NEVER = 1e-6
TOLERANCES = (8.0, 7.0, 6.0)


def ratio(published: Row, pooled: list[Row]) -> float:
    """Generations the pooled search needs for the published search's rmse, over what that one spends.

    Between two budgets the rmse is interpolated, both in logs; NaN outside the budgets measured.
    """
    rows = sorted(pooled, key=lambda row: -row.generations)
    error, spent = [math.log(r.rmse) for r in rows], [math.log(r.generations) for r in rows]
    needed = np.interp(math.log(published.rmse), error, spent, left=math.nan, right=math.nan)
    return math.exp(float(needed)) / published.generations


def compare(world: World, seeds: int, n: int) -> None:
    """Print one world: the ratio, then every method and budget."""
    names, rows = [], []
    for rounds, repeats in BISECTIONS:
        names.append(f"bisection {rounds} x {repeats}")
        rows.append(measure(world, "bisection", seeds, n, rounds=rounds, repeats=repeats))
    published = rows[BISECTIONS.index(PUBLISHED)]
    for rounds in BUDGETS:
        names.append(f"pooled {rounds} x 5")
        rows.append(measure(world, "pooled", seeds, n, rounds=rounds, tolerance=NEVER))
    fixed = rows[len(BISECTIONS) :]
    for tolerance in TOLERANCES:
        names.append(f"pooled, tolerance {tolerance:g}")
        rows.append(measure(world, "pooled", seeds, n, tolerance=tolerance))
    scatter = world.scores(np.random.default_rng(0), np.full(100_000, TARGET)).std()
    print(f"\n{world.name}: {ratio(published, fixed):.2f} of the published method's generations for its rmse")
    print(f"  {'':22}{'judged':>8}{'rmse':>7}{'limit':>7}{'bias':>7}{'coverage':>10}{'lost':>7}")
    for name, r in zip(names, rows, strict=True):
        limit = scatter / math.sqrt(r.generations)
        print(
            f"  {name:22}{r.generations:8.1f}{r.rmse:7.2f}{limit:7.2f}{r.bias:+7.2f}{r.coverage:10.1%}{r.lost:7.1%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="simulated studies per row (default %(default)s)")
    parser.add_argument("--directions", type=int, default=200, help="directions per study (default %(default)s)")
    arguments = parser.parse_args()
    start = time.perf_counter()
    print(f"{arguments.seeds} studies of {arguments.directions} directions per row; errors in score points")
    for world in WORLDS:
        compare(world, arguments.seeds, arguments.directions)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
