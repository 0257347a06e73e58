"""How often our 95 % intervals hold the truth, beside plain Wilson and plain binomial (Wald) intervals.

    python benchmarks/coverage.py            # some minutes on one core
    python benchmarks/coverage.py --quick    # under half a minute: a part of the cells, fewer studies

Every study is simulated: directions x 5 trials, events with a known rate. The chance of an event is a direction's own,
beta distributed, so that two trials of one direction correlate by the ICC.

    bootstrap  share of studies whose interval came from a bootstrap; the rest were too thin for it
    region     claimed: 90 % or more of the studies took the cluster bootstrap, and coverage is held to 93-97 %
               conservative: fewer did, or directions are crossed with prompts; coverage is held to 93 % or more and
               is by design often well above
    ours       share of studies whose interval holds the true rate (difference)
    width      mean width of our interval, in percentage points
    Wilson     coverage when trials are taken as independent (of differences: Newcombe's, from two Wilson intervals)
    Wald       coverage of the textbook interval, estimate +- 1.96 standard errors, trials taken as independent

Ends with every cell outside of what it is held to by more than two standard errors of the simulation itself; then the
exit status is 1.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri
from scipy.stats import norm

from esr.analysis.paired import Contrast, mover_difference
from esr.analysis.uncertainty import (
    BOOTSTRAP,
    BOOTSTRAPS,
    LEVEL,
    Interval,
    bootstrap_sums,
    ratio_interval,
    wilson_effective,
)

Array = NDArray[np.float64]
TRIALS = 5
"""Per direction."""
CHUNK = 250
"""Studies that share one set of bootstrap draws, as studies with one seed do."""
Z = float(norm.ppf((1 + LEVEL) / 2))
CLAIMED, CONSERVATIVE = "claimed", "conservative"


@dataclass
class Tally:
    """What the intervals of one cell's studies did."""

    truth: float
    ours: list[Interval] = field(default_factory=list)
    wilson: list[tuple[float, float]] = field(default_factory=list)
    wald: list[tuple[float, float]] = field(default_factory=list)

    def coverage(self, intervals: list[tuple[float, float]]) -> float:
        low, high = np.array(intervals).T
        return float(((low <= self.truth + 1e-12) & (self.truth - 1e-12 <= high)).mean())

    @property
    def bounds(self) -> list[tuple[float, float]]:
        return [(interval.low, interval.high) for interval in self.ours]

    @property
    def bootstrapped(self) -> float:
        return float(np.mean([interval.method in BOOTSTRAPS for interval in self.ours]))

    @property
    def region(self) -> str:
        claimed = np.mean([interval.method == BOOTSTRAP for interval in self.ours])
        return CLAIMED if claimed >= 0.9 else CONSERVATIVE

    @property
    def broken(self) -> bool:
        """Whether coverage leaves its region's range by more than two standard errors of the simulation."""
        covered, slack = self.coverage(self.bounds), 2 * math.sqrt(LEVEL * (1 - LEVEL) / len(self.ours))
        return covered < 0.93 - slack or (self.region == CLAIMED and covered > 0.97 + slack)

    def row(self) -> str:
        width = float(np.mean([high - low for low, high in self.bounds]))
        plain = f"{self.coverage(self.wilson):8.1%}{self.coverage(self.wald):8.1%}"
        return f"{self.bootstrapped:10.0%}  {self.region:13}{self.coverage(self.bounds):7.1%}{100 * width:8.2f}{plain}"


HEADER = f"{'bootstrap':>10}  {'region':13}{'ours':>7}{'width':>8}{'Wilson':>8}{'Wald':>8}"


def chunks(studies: int) -> Iterator[tuple[int, int]]:
    """Seed of the bootstrap and number of studies, chunk by chunk."""
    for first in range(0, studies, CHUNK):
        yield first // CHUNK, min(CHUNK, studies - first)


def wald(rate: float, trials: float) -> tuple[float, float]:
    """The textbook interval of a rate."""
    half = Z * math.sqrt(rate * (1 - rate) / trials)
    return rate - half, rate + half


def chances(uniform: Array, rate: float, icc: float) -> Array:
    """The directions' own chances: quantiles of the beta distribution with this mean and ICC."""
    if icc == 0:
        return np.full(uniform.shape, rate)
    scale = (1 - icc) / icc
    return betaincinv(rate * scale, (1 - rate) * scale, uniform)


def single_rate(directions: int, rate: float, icc: float, studies: int, rng: np.random.Generator) -> Tally:
    """Intervals of one rate."""
    tally, trials = Tally(rate), np.full(directions, float(TRIALS))
    for seed, size in chunks(studies):
        events = rng.binomial(TRIALS, chances(rng.random((size, directions)), rate, icc)).astype(float)
        drawn = bootstrap_sums(events.T, seed=seed) / trials.sum()
        for k, own in enumerate(events):
            found = float(own.sum() / trials.sum())
            tally.ours.append(ratio_interval(own, trials, seed=seed, draws_of_ratio=drawn[:, k]))
            tally.wilson.append(wilson_effective(found, trials.sum(), Z))
            tally.wald.append(wald(found, trials.sum()))
    return tally


@dataclass(frozen=True)
class World:
    """How alike two conditions are."""

    name: str
    icc: float
    alike: bool
    """Directions that restart often under one condition do so under the other; else they are unrelated."""
    shared: float
    """Share of pairs whose luck is the same in both arms."""
    paired: bool = True
    """Else the control has half as many directions, and other ones."""


WORLDS = (
    World("ICC 0, arms unrelated", 0.0, False, 0.0),
    World("ICC 0, 90 % of luck shared", 0.0, True, 0.9),
    World("ICC .1, directions alike, half the luck shared", 0.1, True, 0.5),
    World("ICC .3, directions alike, half the luck shared", 0.3, True, 0.5),
    World("ICC .3, directions alike, 95 % of luck shared", 0.3, True, 0.95),
    World("ICC .3, arms unrelated", 0.3, False, 0.0),
    World("ICC .1, no pairs, control of half as many other directions", 0.1, False, 0.0, paired=False),
)


def difference(
    world: World, directions: int, rates: tuple[float, float], studies: int, rng: np.random.Generator
) -> Tally:
    """Intervals of treatment - control; ``rates`` are the control's and the treatment's."""
    tally = Tally(rates[1] - rates[0])
    for seed, size in chunks(studies):
        shape = (size, directions, TRIALS)
        first = rng.random(shape[:2])
        second = first if world.alike else rng.random(shape[:2])
        luck = rng.random(shape)
        other = np.where(rng.random(shape) < world.shared, luck, rng.random(shape))
        control = luck < chances(first, rates[0], world.icc)[..., None]
        treatment = other < chances(second, rates[1], world.icc)[..., None]
        for contrast in contrasts(control, treatment, world.paired, seed):
            tally.ours.append(contrast.difference(LEVEL))
            (a, b), (m, n) = contrast.values, contrast.totals[[1, 3]]
            arms = [Interval(*wilson_effective(rate, trials, Z), "") for rate, trials in ((a, m), (b, n))]
            newcombe = mover_difference((a, b), arms)
            tally.wilson.append((newcombe.low, newcombe.high))
            half = Z * math.sqrt(a * (1 - a) / m + b * (1 - b) / n)
            tally.wald.append((a - b - half, a - b + half))
    return tally


def contrasts(control: NDArray[np.bool_], treatment: NDArray[np.bool_], paired: bool, seed: int) -> Iterator[Contrast]:
    """The comparison of every study; events [studies, directions, trials]."""
    gained, lost = ((a & ~b).sum(2).astype(float) for a, b in ((treatment, control), (control, treatment)))
    events = [arm.sum(2).astype(float) for arm in (treatment, control)]
    counted = [np.full(control.shape[1], float(TRIALS))] * 2
    if not paired:
        half = control.shape[1] // 2
        events = [np.pad(events[0], ((0, 0), (0, half))), np.pad(events[1][:, :half], ((0, 0), (half * 2, 0)))]
        counted = [np.pad(counted[0], (0, half)), np.pad(counted[1][:half], (half * 2, 0))]
    size = len(control)
    drawn = bootstrap_sums(np.vstack([*events, *counted]).T, seed=seed)
    for k in range(size):
        columns = np.stack([events[0][k], counted[0], events[1][k], counted[1]], axis=1)
        changes = np.stack([gained[k], lost[k]], axis=1) if paired else None
        yield Contrast(columns, changes, drawn[:, [k, 2 * size, size + k, 2 * size + 1]], (0.0, 1.0), seed)


def crossed_rate(
    prompts: int, directions: int, rate: float, shares: tuple[float, float], studies: int, rng: np.random.Generator
) -> tuple[Tally, Tally]:
    """Intervals of one rate where directions and prompts both matter, clustered by both and by directions only.

    ``shares`` are the directions' and the prompts' of the variance of a normal propensity; the event is that it falls
    below the quantile of the rate, so the rate over all directions and prompts is exact. Each direction gets 5 prompts.
    """
    both, one = Tally(rate), Tally(rate)
    rows = np.repeat(np.arange(directions), TRIALS)
    for study in range(studies):
        columns = np.concatenate([rng.permutation(prompts)[:TRIALS] for _ in range(directions)])
        parts = [
            math.sqrt(share) * rng.standard_normal(n) for share, n in zip(shares, (directions, prompts), strict=True)
        ]
        rest = math.sqrt(1 - sum(shares)) * rng.standard_normal(len(rows))
        events, trials = np.zeros((2, directions, prompts))
        events[rows, columns] = parts[0][rows] + parts[1][columns] + rest < ndtri(rate)
        trials[rows, columns] = 1
        found = float(events.sum() / trials.sum())
        both.ours.append(ratio_interval(events, trials, seed=study // CHUNK, draws=2000))
        one.ours.append(ratio_interval(events.sum(1), trials.sum(1), seed=study // CHUNK, draws=2000))
        for tally in (both, one):
            tally.wilson.append(wilson_effective(found, trials.sum(), Z))
            tally.wald.append(wald(found, trials.sum()))
    return both, one


RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.6)
PAIRS = (
    (0.002, 0.002), (0.01, 0.01), (0.1, 0.1), (0.3, 0.3), (0.6, 0.6),
    (0.02, 0.005), (0.074, 0.055), (0.038, 0.148), (0.01, 0.06), (0.3, 0.31), (0.3, 0.2),
)  # fmt: skip
"""Rates of control and treatment: no effect, two published ones (ablation, self-monitoring), small and large ones."""


@dataclass(frozen=True)
class Cells:
    """What is simulated."""

    directions: Sequence[int] = (20, 40, 200)
    rates: Sequence[float] = RATES
    worlds: Sequence[World] = WORLDS
    pairs: Sequence[tuple[float, float]] = PAIRS
    prompts: Sequence[int] = (5, 10, 38)
    shares: Sequence[tuple[float, float]] = ((0.2, 0.0), (0.2, 0.1))
    crossed_directions: Sequence[int] = (40, 100)


QUICK = Cells(
    directions=(20, 40),
    rates=(0.005, 0.02, 0.1, 0.6),
    worlds=(WORLDS[0], WORLDS[3], WORLDS[4]),
    pairs=((0.01, 0.01), (0.3, 0.3), (0.038, 0.148), (0.3, 0.31)),
    prompts=(10,),
    shares=((0.2, 0.1),),
    crossed_directions=(40,),
)


def run(cells: Cells, studies: int) -> list[str]:
    """Print every cell; the names of those outside of what they are held to."""
    broken = []

    def show(name: str, tally: Tally, more: str = "") -> None:
        print(f"{name}{tally.row()}{more}", flush=True)
        if tally.broken:
            broken.append(" ".join(name.split()))

    print(f"One rate, {studies} studies per cell\n{'directions':>10}{'ICC':>5}{'rate':>8}{HEADER}")
    for n in cells.directions:
        for icc in (0.0, 0.1, 0.3):
            for rate in cells.rates:
                rng = np.random.default_rng([n, round(10 * icc), round(1000 * rate)])
                show(f"{n:10}{icc:5.1f}{rate:8.1%}", single_rate(n, rate, icc, studies, rng))
    for world in cells.worlds:
        print(f"\nTreatment - control, {studies // 2} studies per cell; {world.name}")
        print(f"{'directions':>10}{'control':>9}{'treatment':>11}{HEADER}")
        for n in cells.directions:
            for rates in cells.pairs:
                rng = np.random.default_rng([n, *(round(1000 * rate) for rate in rates)])
                tally = difference(world, n, rates, studies // 2, rng)
                show(f"{n:10}{rates[0]:9.1%}{rates[1]:11.1%}", tally)
    print(f"\nOne rate, prompts matter too; ours crosses directions with prompts, {studies // 4} studies per cell.")
    print("shares: the directions' and the prompts' part of the variance. by direction: the default interval.")
    print(f"{'directions':>10}{'prompts':>9}{'shares':>10}{'rate':>7}{HEADER}{'by direction':>14}")
    for n in cells.crossed_directions:
        for prompts in cells.prompts:
            for shares in cells.shares:
                for rate in (0.02, 0.1, 0.4):
                    rng = np.random.default_rng([n, prompts, round(100 * rate)])
                    both, one = crossed_rate(prompts, n, rate, shares, studies // 4, rng)
                    name = f"{n:10}{prompts:9}{shares[0]:6.1f}{shares[1]:4.1f}{rate:7.0%}"
                    show(name, both, f"{one.coverage(one.bounds):14.1%}")
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a part of the cells, fewer studies")
    parser.add_argument("--studies", type=int, help="simulated studies per cell (default 2000; with --quick 400)")
    arguments = parser.parse_args()
    start = time.perf_counter()
    studies = arguments.studies or (400 if arguments.quick else 2000)
    broken = run(QUICK if arguments.quick else Cells(), studies)
    print(f"\nOutside of what is claimed: {'; '.join(broken) or 'no cell'}. {time.perf_counter() - start:.0f} s")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
