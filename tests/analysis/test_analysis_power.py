import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import power_proportions_2indep, samplesize_proportions_2indep_onetail

from esr.analysis.paired import exchange_p
from esr.analysis.power import Pilot, directions_needed, intraclass_correlation, minimum_change, pilot, power_at
from esr.errors import UserError

ESTIMATION = stats.norm.ppf(0.975) ** 2 / 2  # directions that the estimated scatter costs

CASES = [(0.1, 0.1), (0.038, 0.11), (0.3, -0.1), (0.6, 0.05), (0.074, -0.019)]


@pytest.mark.parametrize(("rate", "change"), CASES)
@pytest.mark.parametrize("trials", [30, 200, 1500])
def test_power_is_statsmodels_for_independent_proportions(rate, change, trials):
    expected = power_proportions_2indep(change, rate, trials, return_results=False)
    assert power_at(trials + ESTIMATION, rate, change, 1, 0, 0) == pytest.approx(expected, abs=1e-10)
    assert power_at(trials / 5 + ESTIMATION, rate, change, 5, 0, 0) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("rate", "change"), CASES)
def test_directions_are_statsmodels_sample_size(rate, change):
    n = samplesize_proportions_2indep_onetail(change, rate, power=0.8, alpha=0.05, alternative="two-sided")
    assert directions_needed(rate, change, 1, 0, 0) == math.ceil(n + ESTIMATION)
    assert directions_needed(rate, change, 5, 0, 0) == math.ceil(n / 5 + ESTIMATION)


@pytest.mark.parametrize(("icc", "correlation"), [(0, 0), (0.2, 0), (0.1, 0.5), (1, 0.3)])
def test_one_direction_fewer_lacks_the_power_and_the_inverse_gives_the_change_back(icc, correlation):
    for rate, change, k in itertools.product([0.05, 0.3], [-0.03, 0.1], [1, 5]):
        needed = directions_needed(rate, change, k, icc, correlation)
        assert power_at(needed, rate, change, k, icc, correlation) >= 0.8
        assert power_at(needed - 1, rate, change, k, icc, correlation) < 0.8 + 1e-6
        fall, rise = minimum_change(needed, rate, k, icc, correlation)
        assert abs(fall if change < 0 else rise) <= abs(change) * (1 + 1e-6)
        assert power_at(needed, rate, rise, k, icc, correlation) == pytest.approx(0.8, abs=1e-6)


def test_the_design_effect_multiplies_and_correlation_saves():
    unclustered = directions_needed(0.1, 0.05, 5, 0, 0) - ESTIMATION
    assert directions_needed(0.1, 0.05, 5, 0.25, 0) - ESTIMATION == pytest.approx(2 * unclustered, rel=0.02)
    assert directions_needed(0.1, 0.05, 5, 0, 0.5) - ESTIMATION == pytest.approx(unclustered / 2, rel=0.03)
    assert directions_needed(0.1, 0.05, 50, 1, 0) == directions_needed(0.1, 0.05, 1, 1, 0)


def test_a_correlation_that_cannot_be_is_taken_as_the_nearest():
    """5 of 100 against 15 of 100: at best the five are among the fifteen."""
    largest = 0.05 * 0.85 / math.sqrt(0.05 * 0.95 * 0.15 * 0.85)
    assert directions_needed(0.05, 0.1, 1, 0, 1) == directions_needed(0.05, 0.1, 1, 0, largest)
    assert directions_needed(0.0, 0.1, 1, 0, 1) == directions_needed(0.0, 0.1, 1, 0, 0)


def test_few_directions_may_see_no_fall_at_all():
    fall, rise = minimum_change(10, 0.01, 5, 0.1, 0)
    assert math.isnan(fall)
    assert 0.1 < rise < 0.3
    assert math.isnan(minimum_change(1, 0.5, 5, 0, 0)[1])
    assert math.isnan(minimum_change(50, 0.0, 5, 0, 0)[0])


def test_values_out_of_range_are_refused():
    for message, values in {
        r"rate lies in 0 to 1\. Got 1\.5": (1.5, 0.1, 5, 0, 0),
        r"change is not 0 .*Got \+0 from 0\.1": (0.1, 0, 5, 0, 0),
        r"change is not 0 .*Got -0\.2 from 0\.1": (0.1, -0.2, 5, 0, 0),
        r"at least one pair": (0.1, 0.1, 0, 0, 0),
        r"ICC lies in 0 to 1\. Got nan\. Estimate it": (0.1, 0.1, 5, math.nan, 0),
        r"correlation of pairs .*Got nan": (0.1, 0.1, 5, 0, math.nan),
    }.items():
        with pytest.raises(UserError, match=message):
            directions_needed(*values)
    with pytest.raises(UserError, match=r"power is at least 0\.5"):
        directions_needed(0.1, 0.1, 5, 0, 0, power=1)
    with pytest.raises(UserError, match="level of a test"):
        minimum_change(20, 0.1, 5, 0, 0, level=0)


def test_intraclass_correlation_is_the_slow_analysis_of_variance():
    generator = np.random.default_rng(0)
    groups = [generator.normal(generator.normal(0, 1), 1.5, size=n) for n in (3, 5, 1, 8, 4)]
    n, count = len(groups), sum(map(len, groups))
    grand = math.fsum(value for group in groups for value in group) / count
    between = sum(len(group) * (group.mean() - grand) ** 2 for group in groups) / (n - 1)
    within = sum((value - group.mean()) ** 2 for group in groups for value in group) / (count - n)
    size = (count - sum(len(group) ** 2 for group in groups) / count) / (n - 1)
    codes = np.repeat(np.arange(n), [len(group) for group in groups])
    found = intraclass_correlation(np.concatenate(groups), codes)
    assert found == pytest.approx((between - within) / (between + (size - 1) * within), abs=1e-12)
    assert between / within == pytest.approx(stats.f_oneway(*groups).statistic)
    assert intraclass_correlation(np.tile([0.0, 1.0], 4), np.repeat(np.arange(4), 2)) == 0  # negative, cut off
    assert intraclass_correlation(np.repeat([0.0, 1.0], 4), np.repeat(np.arange(2), 4)) == 1
    assert math.isnan(intraclass_correlation(np.zeros(6), np.repeat(np.arange(3), 2)))


def draw_pairs(generator, studies, directions, rates, icc, alike, shared, trials=5):
    """Events [studies, directions, trials] of control and treatment, as in benchmarks/coverage.py."""
    scale = (1 - icc) / icc
    first = generator.random((studies, directions, 1))
    second = first if alike else generator.random(first.shape)
    luck = generator.random((studies, directions, trials))
    other = np.where(generator.random(luck.shape) < shared, luck, generator.random(luck.shape))
    chances = [
        stats.beta.ppf(u, rate * scale, (1 - rate) * scale) for u, rate in zip((first, second), rates, strict=True)
    ]
    return luck < chances[0], other < chances[1]


def test_pilot_finds_what_was_simulated(make_trials):
    """Unrelated arms: the ICC of the differences is that of the trials. The rate is the control's, pairs count once."""
    control, treatment = draw_pairs(np.random.default_rng(1), 1, 400, (0.2, 0.4), 0.3, False, 0.0)
    rows = [
        {"condition": c, "direction": f"{d}", "prompt_index": p, "seed": 0, "scores": [1, 9] if arm[0, d, p] else [5]}
        for c, arm in (("plain", control), ("steered", treatment))
        for d in range(400)
        for p in range(5)
    ]  # fmt: skip
    rows[0]["scores"] = None
    found = pilot(make_trials(rows), "steered", "plain")
    assert found.rate == pytest.approx((control.sum() - control[0, 0, 0]) / 1999, abs=1e-12)
    assert found.icc == pytest.approx(0.3, abs=0.06)
    assert found.correlation == pytest.approx(0, abs=0.06)


def test_pilot_of_equal_arms_and_of_arms_that_do_not_vary(make_trials):
    def rows(condition, event):
        return [
            {"condition": condition, "direction": f"{d}", "prompt_index": p, "seed": 0, "scores": scores}
            for d in range(4)
            for p in range(3)
            for scores in [[10, 90] if event(d, p) else [50]]
        ]

    trials = make_trials(
        rows("a", lambda d, p: d == p) + rows("b", lambda d, p: d == p) + rows("c", lambda d, p: False)
    )
    same, never = pilot(trials, "a", "b"), pilot(trials, "a", "c")
    assert (same.rate, same.correlation) == (0.25, pytest.approx(1))
    assert math.isnan(same.icc)
    assert (never.rate, never.icc >= 0) == (0, True)
    assert math.isnan(never.correlation)
    with pytest.raises(UserError, match=r"rate over scored responses.*'improvement_rate'"):
        pilot(trials, "a", "b", "improvement_rate")
    with pytest.raises(UserError, match=r"at least two directions.*3 pairs of 1 directions"):
        pilot(trials[trials["direction"] == "1"], "a", "b")
    assert isinstance(same, Pilot)


@pytest.mark.slow
@pytest.mark.parametrize("power", [0.8, 0.9])
@pytest.mark.parametrize(
    ("rates", "icc", "alike", "shared"),
    [
        ((0.2, 0.35), 0.1, False, 0.0),
        ((0.1, 0.25), 0.3, False, 0.0),
        ((0.4, 0.3), 0.2, True, 0.5),
        ((0.5, 0.4), 0.01, True, 0.7),
    ],
)
def test_simulated_studies_of_that_size_see_the_change_that_often(rates, icc, alike, shared, power):
    """600 studies, planned from the ICC and correlation of one huge one. The t test over directions has the planned
    power to 3 standard errors and 3 points for the approximation; the exchange test, being discrete, to 10 points less.
    """
    generator = np.random.default_rng(3)
    control, treatment = (events[0] for events in draw_pairs(generator, 1, 40_000, rates, icc, alike, shared))
    difference = treatment.astype(float) - control
    measured = intraclass_correlation(difference.ravel(), np.repeat(np.arange(40_000), 5))
    correlation = np.corrcoef(treatment.ravel(), control.ravel())[0, 1]
    directions = directions_needed(rates[0], rates[1] - rates[0], 5, measured, correlation, power=power)
    events = [e.sum(2) for e in draw_pairs(generator, 600, directions, rates, icc, alike, shared)]
    seen = {"t": 0, "exchange": 0}
    for a, b in zip(*events, strict=True):
        columns = np.stack([b, np.full(directions, 5), a, np.full(directions, 5)], axis=1).astype(float)
        seen["exchange"] += exchange_p(columns, seed=0, draws=1000)[0] < 0.05
        seen["t"] += stats.ttest_1samp(b - a, 0).pvalue < 0.05
    planned = power_at(directions, rates[0], rates[1] - rates[0], 5, measured, correlation)
    slack = 3 * math.sqrt(planned * (1 - planned) / 600) + 0.03
    assert seen["t"] / 600 == pytest.approx(planned, abs=slack)
    assert planned - 0.1 < seen["exchange"] / 600 < planned + slack
