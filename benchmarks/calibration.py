"""Judged generations that a calibration needs for the error of the published search, over what that one spends.

    python benchmarks/calibration.py            # some ten minutes on one core; two studies per figure are good to .04
    python benchmarks/calibration.py --quick    # does it run? some seconds, noisy

``--seeds`` sets the studies per figure; those of the published search are ten times as many.

The error of an answer is the *true* mean score at the boost found, minus the target of 30. The published search does 10
rounds of 5. The pooled search goes on in steps of one and two; needed is where its rmse passes the published one's,
by a line through all steps (`needed`). In brackets the search's bias there, in score points.

    pooled      the pooled search alone
    surrogate   with a hint about every direction. In simulated worlds it tells of the log boost where the score has
                fallen by half, and explains the share R2 of its variance that the surrogate explained on the organism
                (left-out; another table varies it); in measured worlds it is the surrogate's own
    oracle      the pooled search that is told the population, the true shape and the hint's accuracy beforehand: what
                directions' own scores and such a prior allow. A target under it cannot be met
    own scores  (sd of one score at the threshold / rmse)^2: what scores taken at the threshold tell, without anything
                known beforehand

Then each method at its own stop rule: judged per direction, rmse, bias, coverage of the 95 % interval, share lost.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from calibration_worlds import (
    DATA,
    HIGH,
    LOW,
    MEDIAN,
    TARGET,
    WIDTH_SPREAD,
    WORLDS,
    Array,
    Directions,
    Measured,
    World,
)
from numpy.typing import NDArray

from esr.studies.calibration.calibrator import Calibrator, make_calibrator
from esr.studies.calibration.curve import CurveGrid, Float32
from esr.studies.calibration.pooled import Pooled
from esr.studies.calibration.population import Population
from esr.studies.calibration.records import Calibration, Method

Truth = Directions | Measured
PUBLISHED = (10, 5)
CHEAP = 10
"""Studies of the published search per study of the others: one takes a twentieth of the time, and most of the noise
of a ratio was that of its error."""
BUDGETS = ((10, 1), (20, 1), PUBLISHED, (20, 5))
REPEATS, STEPS = 5, 21
"""Of the pooled search: responses a round, and the steps measured (three a round, 35 responses)."""
SETTLED = 7
"""Generations from which on the line is fitted."""
UNBIASED = 1.5
"""Score points of bias that are none: noise and the last step's luck."""
NEVER = 1e-6
"""A tolerance that is never reached."""
ASSUMED_R2 = 0.85
"""Where nothing was measured yet."""
R2S = (0.0, 0.5, 0.7, 0.8, 0.9)
MEASURED = ("organism", "organism-naive")


class OraclePopulation(Population):
    """A population that is told, and learns nothing; curves are told apart by their threshold."""

    weight: Array
    """What the hints say of every kind and threshold, [n, kinds, size]."""

    def learn(self, likelihood: Float32, rows: NDArray[np.bool_]) -> None:
        """Nothing."""

    def posterior(self, likelihood: Float32) -> Float32:
        """With the hints."""
        return super().posterior(likelihood * self.weight.astype(np.float32))


class Oracle(Pooled):
    """The pooled search that knows its world: only the dispersion is learnt."""

    def __init__(self, directions: Directions, r2: float, found: Array | None) -> None:
        self._truth, self._r2, self._z = directions.world, r2, found
        super().__init__(directions.settings("pooled", tolerance=NEVER), len(directions), HIGH)

    def _make_grid(self, share: float) -> CurveGrid:
        def shape(u: Array) -> Array:
            return (LOW + (HIGH - LOW) * self._truth.curve(u, (TARGET - LOW) / (HIGH - LOW))) / HIGH

        widths = self._truth.width * np.exp(np.linspace(-2, 2, 7) * WIDTH_SPREAD)
        return CurveGrid(self._lower, self._settings.upper, share, (shape,), widths, surprise=0)

    def _make_population(self) -> Population:
        s, world, grid = self._settings, self._truth, self._grid
        population = OraclePopulation(grid, self._n, s.prior_mean, s.prior_sd)
        middles = population.middles
        middles.centre, middles.spread, middles.outliers = math.log(MEDIAN), world.spread, 1e-3
        population.width, population.width_spread = math.log(world.width), WIDTH_SPREAD
        population.weight = np.ones((self._n, 1, 1))
        if self._z is not None:
            middle = grid.x + world.to_middle() * np.exp(grid.log_widths)[:, None]
            noise = math.sqrt(world.middle_variance() * (1 / self._r2 - 1))
            population.weight = np.exp(-0.5 * ((self._z[0][:, None, None] - middle) / noise) ** 2) + 1e-12
        return population


def answer(directions: Truth, calibrator: Calibrator, rng: np.random.Generator) -> bool:
    """Answer the open round from the truth. False when nothing was asked."""
    probes = calibrator.ask()
    repeats = [p.repeats for p in probes]
    rows = np.repeat(np.array([p.direction for p in probes], dtype=np.int64), repeats)
    scores = directions.scores(rng, rows, np.repeat(np.array([p.boost for p in probes]), repeats))
    for probe, own in zip(probes, np.split(scores, np.cumsum(repeats)[:-1]), strict=bool(probes)):
        calibrator.tell(probe, own.tolist())
    return bool(probes)


def run(directions: Truth, calibrator: Calibrator, rng: np.random.Generator) -> list[Calibration]:
    """Answer every probe from the truth until the calibrator asks no more."""
    while answer(directions, calibrator, rng):
        pass
    return calibrator.results()


@dataclass(frozen=True)
class Row:
    """One method in one world, over all seeds."""

    generations: float
    rmse: float
    bias: float
    coverage: float = math.nan
    lost: float = math.nan


def measure(world: World | Measured, method: Method, seeds: int, n: int = 200, r2: float = 0, **changes: float) -> Row:
    """A method at its own stop rule, seeds 0 .. seeds - 1. Changes: of the settings; ``r2`` > 0: with hints."""
    errors, covered, spent, lost, total = [], [], [], 0, 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        directions = drawn(world, n, rng)
        found = hints_of(directions, rng, r2)
        settings = directions.settings(method, **changes)
        results = run(directions, make_calibrator(settings, len(directions), directions.unsteered, found), rng)
        keep = np.array([j for j, c in enumerate(results) if c.threshold is not None])
        errors.append(directions.mean(keep, np.array([results[j].threshold for j in keep])) - TARGET)
        true = np.exp(directions.thresholds)
        covered += [c.low <= t <= c.high for c, t in zip(results, true, strict=True)]
        spent += [c.generations for c in results]
        lost += len(directions) - len(keep)
        total += len(directions)
    error = np.concatenate(errors)
    rmse = math.sqrt(float((error**2).mean()))
    return Row(float(np.mean(spent)), rmse, float(error.mean()), float(np.mean(covered)), lost / total)


def drawn(world: World | Measured, n: int, rng: np.random.Generator) -> Truth:
    """Directions of a world; those of a measured world are always the same."""
    return world if isinstance(world, Measured) else world.draw(n, rng)


def hints_of(directions: Truth, rng: np.random.Generator, r2: float) -> Array | None:
    """The hints of the surrogate, made or measured; None without (``r2`` 0)."""
    if r2 == 0:
        return None
    return directions.found if isinstance(directions, Measured) else directions.hints(rng, r2)


def course(
    world: World | Measured, make: Callable[[Truth, Array | None], Pooled], seeds: int, n: int, r2: float
) -> list[Row]:
    """Error after each of the first ``STEPS`` steps of a search that does not stop early."""
    spent, errors = np.zeros(STEPS), [[] for _ in range(STEPS)]  # type: tuple[Array, list[list[Array]]]
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        directions = drawn(world, n, rng)
        calibrator = make(directions, hints_of(directions, rng, r2))
        for step in range(STEPS):
            spent[step:] += sum(p.repeats for p in calibrator.ask()) / len(directions) / seeds
            answer(directions, calibrator, rng)
            errors[step].append(directions.mean(np.arange(len(directions)), calibrator.answers()) - TARGET)
    rows = []
    for each, found in zip(spent, errors, strict=True):
        error = np.concatenate(found)
        rows.append(Row(float(each), math.sqrt(float((error**2).mean())), float(error.mean())))
    return rows


def pooled(directions: Truth, found: Array | None) -> Pooled:
    """The search as a study does it, but for the stop rule."""
    settings = directions.settings("pooled", repeats=REPEATS, tolerance=NEVER)
    return Pooled(settings, len(directions), directions.unsteered, found)


def needed(published: Row, rows: list[Row]) -> tuple[float, float]:
    """Generations for the published rmse, over those of the published search, and the bias there.

    What scores tell adds up, so 1 / rmse^2 goes up with the generations in a straight line: it is fitted to all steps
    from ``SETTLED`` generations on, which a single step's noise moves little. Not before the bias has come down to the
    published search's, or to ``UNBIASED`` where that is smaller.
    """
    used = [row for row in rows if row.generations >= SETTLED]
    slope, start = np.polyfit([r.generations for r in used], [r.rmse**-2 for r in used], 1)
    allowed = max(abs(published.bias), UNBIASED)
    biased = [row.generations for row in rows if abs(row.bias) > allowed]
    after = [row.generations for row in rows if row.generations > max(biased, default=0)]
    spent = max((published.rmse**-2 - start) / slope, min(after, default=math.nan))
    bias = np.interp(spent, [r.generations for r in rows], [r.bias for r in rows])
    return spent / published.generations, float(bias)


def scatter(world: World | Measured) -> float:
    """Standard deviation of one score at the threshold, over directions (root mean square)."""
    rng = np.random.default_rng(0)
    directions = drawn(world, 400, rng)
    rows = np.repeat(np.arange(len(directions)), 200)
    own = directions.scores(rng, rows, np.exp(directions.thresholds)[rows]).reshape(len(directions), -1)
    return math.sqrt(float(own.var(axis=1).mean()))


@dataclass(frozen=True)
class Compared:
    """One world: the published search, and the ratio and bias of each other."""

    published: Row
    pooled: tuple[float, float]
    oracle: tuple[float, float]
    surrogate: tuple[float, float]
    surrogate_oracle: tuple[float, float]
    own_scores: float


def compare(world: World | Measured, seeds: int, n: int, r2: float) -> Compared:
    """All ratios of one world."""
    published = measure(world, "bisection", CHEAP * seeds, n, rounds=PUBLISHED[0], repeats=PUBLISHED[1])

    def oracle(share: float) -> tuple[float, float]:
        if isinstance(world, Measured):
            return math.nan, math.nan

        def told(directions: Truth, found: Array | None) -> Pooled:
            assert isinstance(directions, Directions)
            return Oracle(directions, share, found)

        return needed(published, course(world, told, seeds, n, share))

    return Compared(
        published,
        needed(published, course(world, pooled, seeds, n, 0)),
        oracle(0),
        needed(published, course(world, pooled, seeds, n, r2)),
        oracle(r2),
        (scatter(world) / published.rmse) ** 2 / published.generations,
    )


def _cell(found: tuple[float, float]) -> str:
    ratio, bias = found
    return "-" if math.isnan(ratio) else f"{ratio:.2f} ({bias:+.1f})"


def print_ratios(worlds: list[World | Measured], seeds: int, n: int, r2: float) -> None:
    """The table of ratios, with the bias at each in brackets."""
    print(
        "\n| world | published rmse, bias | pooled | its oracle | surrogate | its oracle | own scores |\n|" + "---|" * 7
    )
    for world in worlds:
        repeats = 3 * seeds if isinstance(world, Measured) else seeds  # fewer directions
        c = compare(world, repeats, n, r2)
        cells = [_cell(c.pooled), _cell(c.oracle), _cell(c.surrogate), _cell(c.surrogate_oracle), f"{c.own_scores:.2f}"]
        print(f"| {world.name} | {c.published.rmse:.1f}, {c.published.bias:+.1f} | {' | '.join(cells)} |", flush=True)


def print_methods(worlds: list[World | Measured], seeds: int, n: int, r2: float) -> None:
    """Each method at its own stop rule."""
    for world in worlds:
        repeats = 3 * seeds if isinstance(world, Measured) else seeds
        print(f"\n{world.name}\n  {'':22}{'judged':>8}{'rmse':>7}{'bias':>7}{'coverage':>10}{'lost':>7}")
        rows = {
            f"bisection {r} x {k}": measure(world, "bisection", repeats, n, rounds=r, repeats=k) for r, k in BUDGETS
        }
        rows |= {f"pooled, tolerance {t}": measure(world, "pooled", repeats, n, tolerance=t) for t in (8, 7)}
        rows |= {f"surrogate, tolerance {t}": measure(world, "pooled", repeats, n, r2, tolerance=t) for t in (8, 7)}
        for name, r in rows.items():
            print(
                f"  {name:22}{r.generations:8.1f}{r.rmse:7.2f}{r.bias:+7.2f}{r.coverage:10.1%}{r.lost:7.1%}", flush=True
            )


def print_by_r2(worlds: list[World | Measured], seeds: int, n: int) -> None:
    """The surrogate's ratio by how much it explains."""
    print("\n| world \\ R2 | " + " | ".join(f"{r2:.1f}" for r2 in R2S) + " |\n|" + "---|" * (len(R2S) + 1))
    for world in worlds:
        published = measure(world, "bisection", CHEAP * seeds, n, rounds=PUBLISHED[0], repeats=PUBLISHED[1])
        cells = [_cell(needed(published, course(world, pooled, seeds, n, r2))) for r2 in R2S]
        print(f"| {world.name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="simulated studies per figure (default %(default)s)")
    parser.add_argument("--directions", type=int, default=200, help="per simulated study (default %(default)s)")
    parser.add_argument("--ratios", action="store_true", help="the first table only")
    parser.add_argument("--quick", action="store_true", help="three worlds, one seed, 40 directions")
    arguments = parser.parse_args()
    seeds, n = (1, 40) if arguments.quick else (arguments.seeds, arguments.directions)
    start = time.perf_counter()
    measured = [Measured.read(name) for name in MEASURED if (DATA / f"surrogate-{name}.npz").exists()]
    r2 = measured[0].r2() if measured else ASSUMED_R2
    print(f"{seeds} studies of {n} directions per figure; errors in score points")
    for world in measured:
        r2s = f"R2 {world.r2():.2f}"
        print(f"{world.name}: {len(world)} directions measured, {world.left_out} never pass {TARGET:g}, {r2s}")
    simulated: list[World | Measured] = list(WORLDS[:2] if arguments.quick else WORLDS)
    print_ratios([*simulated, *measured[: 1 if arguments.quick else None]], seeds, n, r2)
    if arguments.ratios:
        return
    if not arguments.quick:
        print_by_r2([WORLDS[0], WORLDS[1]], seeds, n)
    print_methods([WORLDS[0], *measured[:1]], seeds, n, r2)
    print(f"\n{time.perf_counter() - start:.0f} s, {time.process_time():.0f} s of CPU")


if __name__ == "__main__":
    main()
