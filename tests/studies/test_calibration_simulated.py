"""Both searches on simulated directions with a known truth, and the pooled search's parts against slow definitions."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import calibration as bench
import calibration_worlds as worlds

from esr.studies.calibration.calibrator import make_calibrator
from esr.studies.calibration.curve import SHAPES, SURPRISE, WIDTHS, CurveGrid
from esr.studies.calibration.design import deal, place
from esr.studies.calibration.population import Population
from esr.studies.calibration.records import CalibrationSettings

WORLDS = {world.name: world for world in worlds.WORLDS}
PLAIN, STEEP, GRADED = WORLDS["all-or-nothing, logistic"], worlds.WORLDS[1], WORLDS["graded, logistic"]


# --- the parts


@pytest.fixture(scope="module")
def grid():
    return CurveGrid(lower=2.0, upper=200.0, share=0.35)


def slow_share(grid, boost_index, kind, middle_index):
    u = (grid.x[boost_index] - grid.x[middle_index]) / WIDTHS[kind % len(WIDTHS)]
    fast = math.exp(u / (2 * math.log(2)))
    g = [1 / (1 + math.exp(u)), 2**-fast, 1 - 2 ** (-1 / fast)][kind // len(WIDTHS)]
    return SURPRISE + (1 - 2 * SURPRISE) * g


def test_the_grid_holds_both_bounds_and_half_is_met_at_the_middle(grid):
    assert np.exp(grid.x[[grid.first, grid.last]]) == pytest.approx([2, 200])
    for i in (0, grid.first, 150, grid.last):
        assert grid.modelled(i)[:, i] == pytest.approx(0.5, rel=1e-5)


def test_all_shapes_fall_from_one_to_zero_and_are_as_steep_in_the_middle():
    u, h = np.linspace(-30, 30, 601), 1e-5
    for shape in SHAPES:
        g = shape(u)
        assert (np.diff(g) <= 0).all()
        assert g[[0, -1]] == pytest.approx([1, 0], abs=1e-6)
        assert (shape(np.array(h)) - shape(np.array(-h))) / (2 * h) == pytest.approx(-0.25, rel=1e-5)


def test_modelled_share_and_likelihood_are_the_slow_ones(grid):
    rng = np.random.default_rng(3)
    for i, t, k in zip(
        rng.integers(60, 280, 60), rng.integers(0, grid.size, 60), rng.integers(0, grid.kinds, 60), strict=True
    ):
        m = min(max(slow_share(grid, i, k, t), 1e-4), 1 - 1e-4)
        assert grid.modelled(int(i))[k, t] == pytest.approx(m, rel=1e-5)
        expected = sum(q * math.log(m) + (1 - q) * math.log(1 - m) for q in (0.0, 0.4, 1.05))
        assert grid.log_likelihood(int(i), 3, 1.45)[k, t] == pytest.approx(expected, rel=1e-4)


def test_expected_share_its_crossing_and_the_threshold_s_distribution(grid):
    rng = np.random.default_rng(4)
    posterior = rng.random((2, grid.kinds, grid.size)).astype(np.float32) ** 8
    posterior[1] = 0
    posterior[1, 3, 150] = 1  # one curve for certain
    posterior /= posterior.sum(axis=(1, 2), keepdims=True)
    expected, mass = grid.expected(posterior), grid.threshold_mass(posterior)
    for k in (0, 40, 110):
        m = grid.modelled(int(grid.asked[k]))
        assert expected[0, k] == pytest.approx((posterior[0] * m).sum(), rel=1e-4)
        assert mass[0, k] == pytest.approx(posterior[0][m <= 0.35].sum(), rel=1e-4)
    assert (np.diff(expected) < 0).all()
    # the logistic of width WIDTHS[3] is at 0.35 so many widths beyond its middle
    own = (0.35 - SURPRISE) / (1 - 2 * SURPRISE)
    beyond = WIDTHS[3] * math.log(1 / own - 1) / (grid.x[1] - grid.x[0])
    assert grid.crossing(expected, 0.35)[1] == pytest.approx(150 + beyond, abs=0.1)
    assert grid.asked[np.argmax(mass[1] > 0.5)] == pytest.approx(150 + beyond, abs=2)
    assert grid.crossing(expected, 0.9999).tolist() == [grid.first, grid.first]  # not reached: the bound
    assert grid.crossing(expected, 1e-4).tolist() == [grid.last, grid.last]


def sharp(grid, n, middles, kind):
    """Likelihoods of directions known exactly."""
    likelihood = np.zeros((n, grid.kinds, grid.size), dtype=np.float32)
    likelihood[np.arange(n), kind, np.rint(middles).astype(int)] = 1
    return likelihood


def test_the_population_is_learnt_from_sharp_directions(grid):
    """Directions known exactly: centre, spread, width and shape are those of the sample; a far one is an outlier."""
    rng = np.random.default_rng(5)
    n, kind = 400, len(WIDTHS) + 4  # the second shape, the fifth width
    places = np.rint(160 + 20 * rng.standard_normal(n))
    places[:40] = 20
    likelihood = sharp(grid, n, places, kind)
    population = Population(grid, n, mean=50, sd=50)
    for _ in range(10):
        population.learn(likelihood, np.ones(n, dtype=bool))
    step, middles = grid.x[1] - grid.x[0], population.middles
    assert middles.centre == pytest.approx(grid.x[places[40:].astype(int)].mean(), abs=0.02)
    assert middles.spread == pytest.approx(20 * step, rel=0.15)
    assert 0.08 < middles.outliers < 0.17  # the far ones, and a part of the bell's own tails
    assert math.exp(population.width) == pytest.approx(WIDTHS[4], rel=0.02)
    assert np.argmax(population.shapes) == 1
    assert population.shapes[1] > 0.85
    assert population.posterior(likelihood).sum(axis=(1, 2)) == pytest.approx(1, rel=1e-4)


def test_the_hint_that_predicts_is_found_with_its_slope_and_spread(grid):
    rng = np.random.default_rng(6)
    n, step = 200, grid.x[1] - grid.x[0]
    z = 0.3 * rng.standard_normal(n)
    places = 160 + np.rint((1.5 * z + 0.1 * rng.standard_normal(n)) / step)
    population = Population(grid, n, mean=50, sd=50, hints=np.stack([0.3 * rng.standard_normal(n), z + 7]))
    for _ in range(5):
        population.learn(sharp(grid, n, places, 3), np.ones(n, dtype=bool))
    assert population.hint == 1
    assert population.middles.slope == pytest.approx(1.5, rel=0.1)
    assert 0.09 < population.middles.spread < 0.14  # the first guess of 0.83 keeps a little weight
    assert population.middles.predicted == pytest.approx(grid.x[160] + 1.5 * (z - z.mean()), abs=0.1)


def test_a_score_is_placed_where_it_lowers_the_variance_at_the_answer_most(grid):
    """Against the definition: the linear Bayes gain of every candidate, one at a time."""
    rng = np.random.default_rng(7)
    posterior = rng.random((grid.kinds, grid.size)).astype(np.float32) ** 30
    posterior /= posterior.sum()
    candidates, answer = np.arange(grid.first, grid.last, 25), 170
    at = {int(i): grid.modelled(int(i)).astype(float) for i in (*candidates, answer)}

    def expect(values):
        return float((posterior * values).sum())

    def gain(i):
        m, f = at[i], at[answer]
        covariance = expect(m * f) - expect(m) * expect(f)
        return covariance**2 / (expect(m * m) - expect(m) ** 2 + 0.8 * expect(m * (1 - m)))

    (first, *others), worths = place(grid, posterior, candidates, answer, 0.8, 6)
    assert first == max(at, key=gain)
    assert worths[0] == pytest.approx(gain(first), rel=1e-4)
    assert len(others) == len(worths) - 1 == 5


def test_what_the_scores_of_a_step_are_worth_adds_up_to_what_all_of_them_tell(grid):
    """Against the definition: the variance left after conditioning on all scores at once (Gaussian beliefs)."""
    rng = np.random.default_rng(8)
    posterior = rng.random((grid.kinds, grid.size)).astype(np.float32) ** 30
    posterior /= posterior.sum()
    places, worths = place(grid, posterior, np.arange(grid.first, grid.last, 9), 170, 0.8, 5)
    m = np.stack([grid.modelled(i).astype(float).reshape(-1) for i in (*places, 170)])
    weight = posterior.astype(float).reshape(-1)
    mean = m @ weight
    covariance = (m * weight) @ m.T - np.outer(mean, mean)
    noise = np.diag([0.8 * float((q * (1 - q)) @ weight) for q in m[:-1]])
    told = covariance[-1, :-1] @ np.linalg.solve(covariance[:-1, :-1] + noise, covariance[:-1, -1])
    assert sum(worths) == pytest.approx(told, rel=1e-3)


def test_scores_are_dealt_where_they_are_worth_most_after_one_each():
    assert deal([[0.3, 0.2, 0.1], [0.01, 0.005], [0.5, 0.25, 0.15]], 6) == [2, 1, 3]
    assert deal([[0.3, 0.2], [0.3, 0.2], [0.3, 0.2]], 4) == [2, 1, 1]  # equal worth: the first direction's
    assert deal([[0.3, 0.2 + 1e-12], [0.3, 0.2 + 2e-12]], 3) == [2, 1]  # also when equal but for last bits
    assert deal([[], [0.3, 0.2], [0.1]], 9) == [0, 2, 1]  # no more than a direction may get


def test_simulated_curves_meet_the_target_at_their_threshold():
    for world in worlds.WORLDS:
        directions = world.draw(5, np.random.default_rng(0))
        assert directions.mean(np.arange(5), np.exp(directions.thresholds)) == pytest.approx(worlds.TARGET)
        scores = world.score(np.random.default_rng(0), np.repeat([20.0, 30.0, 60.0], 40_000))
        assert scores.reshape(3, -1).mean(axis=1) == pytest.approx([20, 30, 60], abs=0.7)


# --- the whole


def test_half_of_the_published_generations_at_no_more_error_or_bias():
    for world in (PLAIN, GRADED):
        published = bench.measure(world, "bisection", seeds=4)
        pooled = bench.measure(world, "pooled", seeds=4, rounds=5, tolerance=bench.NEVER)
        noise = published.rmse / math.sqrt(4 * 200)
        assert published.generations == 50
        assert 24.9 < pooled.generations <= 25  # at the very end some have more left than one step allows
        assert pooled.rmse <= published.rmse + 2 * noise
        assert abs(pooled.bias) <= max(abs(published.bias), 2 * noise)


def test_where_the_others_tell_little_the_scatter_of_the_own_scores_is_the_limit():
    steep = bench.measure(STEEP, "pooled", seeds=2, rounds=5, tolerance=bench.NEVER)
    scatter = STEEP.score(np.random.default_rng(0), np.full(50_000, worlds.TARGET)).std()
    assert steep.rmse <= scatter / math.sqrt(25)
    assert abs(steep.bias) < 0.9


def test_forty_directions_are_enough_to_pool():
    published = bench.measure(PLAIN, "bisection", seeds=8, n=40)
    pooled = bench.measure(PLAIN, "pooled", seeds=8, n=40, rounds=5, tolerance=bench.NEVER)
    assert pooled.rmse <= 1.1 * published.rmse
    assert abs(pooled.bias) < 1
    assert 0.9 <= pooled.coverage <= 0.98


@pytest.mark.parametrize("name", WORLDS)
def test_the_tolerance_is_kept_and_the_interval_holds_the_threshold(name):
    """Also where the curve is not the modelled one: the error promised is the error had."""
    row = bench.measure(WORLDS[name], "pooled", seeds=2)
    assert row.rmse < 7.8
    assert abs(row.bias) < 1.6
    assert 0.91 <= row.coverage <= 0.99
    assert row.lost <= 0.005
    assert row.generations < 42


def test_the_published_interval_covers_what_its_docstring_says():
    assert 0.83 < bench.measure(PLAIN, "bisection", seeds=1).coverage < 0.94
    assert bench.measure(PLAIN, "bisection", seeds=1, rounds=20).coverage < 0.75


def strange(shift, share, unsteered=worlds.HIGH, n=200):
    """A plain study in which a share of the log thresholds is shifted: (directions, which, results)."""
    rng = np.random.default_rng(11)
    drawn = PLAIN.draw(n, rng)
    which = rng.random(n) < share
    directions = worlds.Directions(PLAIN, drawn.thresholds + shift * which, drawn.widths)
    calibrator = make_calibrator(directions.settings("pooled"), n, unsteered)
    return directions, which, bench.run(directions, calibrator, rng)


def errors(directions, found, which):
    keep = np.array([j for j, c in enumerate(found) if c.threshold is not None and which[j]])
    return directions.mean(keep, np.array([found[j].threshold for j in keep])) - worlds.TARGET


def test_outliers_get_their_own_threshold():
    directions, which, found = strange(-math.log(6), 0.1)
    assert math.sqrt((errors(directions, found, which) ** 2).mean()) < 10
    assert abs(errors(directions, found, which).mean()) < 5
    assert math.sqrt((errors(directions, found, ~which) ** 2).mean()) < 7.6


@pytest.mark.parametrize(("shift", "text"), [(6, "stays above the target 30"), (-7, "is below the target 30")])
def test_directions_out_of_reach_are_uncalibrated_and_do_not_disturb_the_others(shift, text):
    directions, which, found = strange(shift, 0.2)
    for out, result in zip(which, found, strict=True):
        if out:
            assert (result.status, result.threshold, result.predicted) == ("uncalibrated", None, None)
            assert text in result.reason
            assert "measured over" in result.reason
    assert sum(found[j].status == "calibrated" for j in np.flatnonzero(~which)) >= (~which).sum() - 1
    assert np.mean([found[j].generations for j in np.flatnonzero(~which)]) < 32
    assert math.sqrt((errors(directions, found, ~which) ** 2).mean()) < 7.6
    if shift > 0:
        assert max(found[j].high for j in np.flatnonzero(which)) == pytest.approx(directions.settings("pooled").upper)


def test_the_unsteered_score_is_asked_for_when_unknown():
    calibrator = make_calibrator(PLAIN.draw(7, np.random.default_rng(0)).settings("pooled"), 7, None)
    unsteered = [p for p in calibrator.ask() if p.boost == 0]
    assert [p.direction for p in unsteered] == list(range(7))
    assert 30 <= sum(p.repeats for p in unsteered) < 37
    directions, which, found = strange(0, 0, unsteered=None)
    assert math.sqrt((errors(directions, found, ~which) ** 2).mean()) < 7.6


@pytest.mark.parametrize(
    ("unsteered", "reason"),
    [([], "no unsteered generation was scored"), ([28.0], "mean score 28 without steering leaves no fall")],
)
def test_without_room_to_fall_all_is_uncalibrated(unsteered, reason):
    settings = CalibrationSettings(upper=50, prior_mean=10, prior_sd=10)
    calibrator = make_calibrator(settings, 3, None)
    for probe in calibrator.ask():
        calibrator.tell(probe, unsteered * probe.repeats if probe.boost == 0 else [20.0] * probe.repeats)
    assert calibrator.ask() == []
    assert {r.status for r in calibrator.results()} == {"uncalibrated"}
    assert all(r.reason.startswith(reason) and r.generations > 0 for r in calibrator.results())


def test_unscored_generations_are_spent_and_nothing_scored_is_uncalibrated():
    settings = CalibrationSettings(upper=50, prior_mean=10, prior_sd=10, rounds=4, repeats=5)
    calibrator = make_calibrator(settings, 2, 88)
    while probes := calibrator.ask():
        for p in probes:
            share = expit(3 * (math.log(12) - math.log(p.boost)))
            calibrator.tell(p, [88 * share] * p.repeats if p.direction == 1 else [])
    silent, scored = calibrator.results()
    assert (silent.status, silent.generations) == ("uncalibrated", 20)
    assert silent.reason == "none of 20 generations was scored"
    assert silent.low < 10 < silent.high
    assert scored.status == "calibrated"
    assert scored.threshold == pytest.approx(12 * (58 / 30) ** (1 / 3), rel=0.1)
    assert scored.predicted == 30


def test_a_direction_that_is_known_worse_gets_more_of_a_step():
    """Directions of one kind, but for a tenth far from the others: those get more, every one at least one a step and at
    most its rounds; all together get what they would get dealt evenly."""
    rng = np.random.default_rng(3)
    drawn, far = PLAIN.draw(60, rng), np.arange(60) < 6
    directions = worlds.Directions(PLAIN, drawn.thresholds - math.log(6) * far, drawn.widths)
    settings = directions.settings("pooled", rounds=4, repeats=5, tolerance=bench.NEVER)
    calibrator = make_calibrator(settings, 60, worlds.HIGH)
    spent = np.zeros(60)
    for step, size in enumerate((1, 2, 2, 1, 2, 2)):
        asked, left = np.zeros(60), 4 * 5 - spent
        for probe in calibrator.ask():
            asked[probe.direction] += probe.repeats
        assert asked.sum() == 60 * size
        assert ((asked >= np.minimum(1, left)) & (asked <= np.minimum(3 * size, left))).all()
        assert step >= 3 or (asked == size).all()
        spent += asked
        bench.answer(directions, calibrator, rng)
    assert spent[far].mean() > spent[~far].mean() + 2
    assert max(c.generations for c in bench.run(directions, calibrator, rng)) <= 20


def test_few_generations_leave_a_wide_interval_and_many_a_narrow_one():
    def width(rounds):
        directions = PLAIN.draw(100, np.random.default_rng(1))
        calibrator = make_calibrator(
            directions.settings("pooled", rounds=rounds, tolerance=bench.NEVER), 100, worlds.HIGH
        )
        found = bench.run(directions, calibrator, np.random.default_rng(2))
        return np.mean([math.log(c.high / c.low) for c in found])

    assert width(2) > 1.4 * width(6) > 1.4 * width(15)
