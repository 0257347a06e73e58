"""Populations of directions with a known truth, for `benchmarks/calibration.py`: simulated ones and measured ones.

In a simulated world a direction's true mean score falls with the boost along a known curve, and single scores scatter
around it. In a measured world the truth is what `benchmarks/curves.py` measured on an organism: a score at some boost
is drawn from those measured at the two boosts beside it, each as often as it is near, so that the true mean is the
measured means joined by straight lines in log boost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

from esr.studies.calibration.records import CalibrationSettings, Method
from esr.studies.calibration.surrogate import hints

Array = NDArray[np.float64]
DATA = Path(__file__).parent / "data"
TARGET, HIGH, LOW = 30.0, 88.0, 1.6
"""Target, mean score of a good response, mean score of one that was carried off."""
MEDIAN = 10.0
WIDTH_SPREAD = 0.3
UNSCORED = 255


def logistic(u: Array, p: float) -> Array:
    """Share of good responses at u widths beyond the threshold; p at u = 0. Symmetric."""
    return expit(logit(p) - u)


def probit(u: Array, p: float) -> Array:
    """Symmetric with light tails; scaled to the logistic's slope in the middle."""
    return norm.cdf(norm.ppf(p) - u * math.sqrt(2 * math.pi) / 4)


def late_collapse(u: Array, p: float) -> Array:
    """Falls slowly, then all at once (log-log)."""
    return np.exp(-np.exp(math.log(-math.log(p)) + np.minimum(u, 30)))


def long_tail(u: Array, p: float) -> Array:
    """Falls at once, then slowly (complementary log-log)."""
    return 1 - np.exp(-np.exp(math.log(-math.log(1 - p)) - np.maximum(u, -30)))


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
    score: Callable[[np.random.Generator, Array], Array] = all_or_nothing
    spread: float = 0.35
    """Standard deviation of the log threshold over directions."""
    width: float = 0.5
    """Median width of the fall, in log boost; varies over directions by a factor e^0.3."""
    prior: tuple[float, float, float] = (1.0, 1.0, 2.5)
    """Prior mean, prior sd and upper bound in units of the true mean threshold. Published: sd/mean 0.5-1, bound/mean
    2-14; that the prior mean is right is a gift to both methods, and one world takes it away."""

    def draw(self, n: int, rng: np.random.Generator) -> Directions:
        """``n`` directions."""
        thresholds = math.log(MEDIAN) + self.spread * rng.standard_normal(n)
        return Directions(self, thresholds, self.width * np.exp(WIDTH_SPREAD * rng.standard_normal(n)))

    def to_middle(self) -> float:
        """Where the score has fallen by half, in widths beyond the threshold."""
        share, half = (TARGET - LOW) / (HIGH - LOW), (HIGH / 2 - LOW) / (HIGH - LOW)
        return float(brentq(lambda u: float(self.curve(np.array(u), share)) - half, -20, 20))

    def middle_variance(self) -> float:
        """Variance over directions of the log boost where the score has fallen by half."""
        mean_square, square_mean = math.exp(2 * WIDTH_SPREAD**2), math.exp(WIDTH_SPREAD**2)
        return self.spread**2 + (self.to_middle() * self.width) ** 2 * (mean_square - square_mean)


WORLDS = (
    World("all-or-nothing, logistic"),
    World("same, falls twice as steep", width=0.25),
    World("same, thresholds spread wider", spread=0.6, width=0.3, prior=(1.0, 1.0, 5.0)),
    World("same, prior twice too high", prior=(2.0, 1.0, 5.0)),
    World("all-or-nothing, probit", curve=probit),
    World("all-or-nothing, long tail", curve=long_tail),
    World("all-or-nothing, late collapse", curve=late_collapse),
    World("graded, logistic", score=graded),
    World("graded, long tail", score=graded, curve=long_tail),
)


@dataclass(frozen=True)
class Directions:
    """Simulated truth: one log threshold and one width per direction."""

    world: World
    thresholds: Array
    widths: Array
    unsteered: float = HIGH

    def __len__(self) -> int:
        return len(self.thresholds)

    def mean(self, direction: NDArray[np.int64], boost: Array) -> Array:
        """True mean score; exactly the target at the threshold."""
        with np.errstate(divide="ignore"):
            u = (np.log(boost) - self.thresholds[direction]) / self.widths[direction]
        return LOW + (HIGH - LOW) * self.world.curve(u, (TARGET - LOW) / (HIGH - LOW))

    def scores(self, rng: np.random.Generator, direction: NDArray[np.int64], boost: Array) -> Array:
        """One score each."""
        return self.world.score(rng, self.mean(direction, boost))

    def settings(self, method: Method, **changes: float) -> CalibrationSettings:
        centre = MEDIAN * math.exp(self.world.spread**2 / 2)
        mean, sd, upper = (centre * f for f in self.world.prior)
        return CalibrationSettings(method=method, target=TARGET, upper=upper, prior_mean=mean, prior_sd=sd, **changes)

    def hints(self, rng: np.random.Generator, r2: float) -> Array:
        """A made hint that explains the share ``r2`` of the variance of the log middles: those and noise, [1, n]."""
        middles = self.thresholds + self.world.to_middle() * self.widths
        noise = math.sqrt(self.world.middle_variance() * (1 / r2 - 1))
        return (middles + noise * rng.standard_normal(len(self)))[None]


@dataclass(frozen=True)
class Measured:
    """Measured truth: the directions whose measured mean score passes the target."""

    name: str
    boosts: Array
    means: Array
    """[n, boosts]."""
    counts: NDArray[np.int64]
    """Scored generations, [n, boosts]."""
    own: Array
    """Their scores first, [n, boosts, generations]."""
    unsteered: float
    found: Array = field(default_factory=lambda: np.empty((0, 0)))
    """The surrogate's hints, [hints, n]."""
    left_out: int = 0

    @classmethod
    def read(cls, subject: str) -> Measured:
        """What was measured of a packaged subject (`benchmarks/curves.py`, `benchmarks/surrogate.py --measure`)."""
        data, read = np.load(DATA / f"curves-{subject}.npz"), np.load(DATA / f"surrogate-{subject}.npz")
        if not np.array_equal(data["latents"], read["latents"]):
            raise SystemExit("curves and surrogate are of the same directions: measure both anew")
        raw = data["scores"].astype(np.float64)
        raw[data["scores"] == UNSCORED] = np.nan
        raw = np.sort(raw, axis=2)  # unscored last
        means = np.nanmean(raw, axis=2)
        keep = (means.min(axis=1) < TARGET) & (means.max(axis=1) > TARGET)
        counts = np.isfinite(raw).sum(axis=2)
        return cls(
            subject, data["boosts"], means[keep], counts[keep], raw[keep], float(data["unsteered"]),
            hints(read["boosts"], read["variation"])[:, keep], int((~keep).sum()),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.means)

    @property
    def thresholds(self) -> Array:
        """Log boost at which the mean first falls through the target."""
        return self.crossing(TARGET)

    def crossing(self, score: float) -> Array:
        """Log boost at which the mean first falls through ``score``."""
        x, below = np.log(self.boosts), self.means < score
        right = np.maximum(below.argmax(axis=1), 1)
        rows = np.arange(len(self))
        a, b = self.means[rows, right - 1], self.means[rows, right]
        found: Array = x[right - 1] + (a - score) / (a - b) * (x[right] - x[right - 1])
        return found

    def _between(self, boost: Array) -> tuple[NDArray[np.int64], Array]:
        places = np.interp(np.log(np.maximum(boost, 1e-9)), np.log(self.boosts), np.arange(len(self.boosts)))
        left = np.minimum(places.astype(np.int64), len(self.boosts) - 2)
        return left, places - left

    def mean(self, direction: NDArray[np.int64], boost: Array) -> Array:
        """True mean score."""
        left, share = self._between(boost)
        found: Array = self.means[direction, left] * (1 - share) + self.means[direction, left + 1] * share
        return found

    def scores(self, rng: np.random.Generator, direction: NDArray[np.int64], boost: Array) -> Array:
        """One score each."""
        left, share = self._between(boost)
        at = left + (rng.random(len(left)) < share)
        return self.own[direction, at, (rng.random(len(at)) * self.counts[direction, at]).astype(np.int64)]

    def settings(self, method: Method, **changes: float) -> CalibrationSettings:
        """The packaged organisms' preset."""
        return CalibrationSettings(method=method, target=TARGET, upper=60, prior_mean=20, prior_sd=8, **changes)

    def r2(self) -> float:
        """Share of the variance of the log boost where the score has fallen by half that the first hint explains, each
        direction left out in turn."""
        return left_out_r2(self.found[0], self.crossing(self.unsteered / 2))


def left_out_r2(z: Array, y: Array) -> float:
    """R2 of the regression of y on z, every point predicted from the others (by the hat matrix)."""
    x = np.column_stack([np.ones(len(z)), z])
    hat = x @ np.linalg.pinv(x)
    missed = (y - hat @ y) / (1 - np.diag(hat))
    return 1 - float((missed**2).sum() / ((y - y.mean()) ** 2).sum())
