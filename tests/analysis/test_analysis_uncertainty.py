import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from esr.analysis import uncertainty
from esr.analysis.uncertainty import (
    BOOTSTRAP,
    CROSSED_AS_TRIALS,
    CROSSED_BOOTSTRAP,
    DIRECTIONS_AS_TRIALS,
    MEASURED,
    UNDEFINED,
    bootstrap_sums,
    clopper_pearson,
    percentile_interval,
    ratio_interval,
    wilson,
    wilson_effective,
)
from esr.errors import UserError


@pytest.mark.parametrize(("events", "trials"), [(0, 7), (7, 7), (3, 10), (1, 200), (199, 200)])
def test_wilson_is_scipys_and_the_effective_form_agrees_on_whole_trials(events, trials):
    expected = stats.binomtest(events, trials).proportion_ci(0.95, method="wilson")
    assert wilson(events, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)
    ours = wilson_effective(events / trials, trials, stats.norm.ppf(0.975))
    assert ours == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("events", "trials"), [(0, 7), (7, 7), (3, 10), (1, 200), (199, 200), (2.5, 17.3)])
def test_wilson_and_clopper_pearson_are_statsmodels(events, trials):
    ours = clopper_pearson(events / trials, trials)
    assert ours == pytest.approx(proportion_confint(events, trials, method="beta"), abs=1e-10)
    wilsons = wilson_effective(events / trials, trials, stats.norm.ppf(0.975))
    assert wilsons == pytest.approx(proportion_confint(events, trials, method="wilson"), abs=1e-10)
    if isinstance(events, int):
        exact = stats.binomtest(events, trials).proportion_ci(0.95, method="exact")
        assert ours == pytest.approx((exact.low, exact.high), abs=1e-10)


def test_wilson_of_no_trials_is_undefined():
    assert all(math.isnan(end) for end in wilson(0, 0))


def test_bootstrap_sums_equal_the_slow_definition():
    sums = np.random.default_rng(3).normal(size=(7, 3))
    fast = bootstrap_sums(sums, seed=11, draws=50)
    generator = np.random.default_rng(11)
    for draw in fast:
        counts = generator.multinomial(7, np.full(7, 1 / 7))
        taken = [cluster for cluster, count in enumerate(counts) for _ in range(count)]
        assert len(taken) == 7
        slow = [math.fsum(sums[cluster, column] for cluster in taken) for column in range(3)]
        assert draw == pytest.approx(slow, abs=1e-10)


def test_two_way_sums_equal_the_slow_double_loop():
    """A cell counts as often as its direction times as often as its prompt."""
    sums = np.random.default_rng(3).normal(size=(6, 4, 2))
    fast = bootstrap_sums(sums, seed=11, draws=50)
    directions = np.random.default_rng(11).multinomial(6, np.full(6, 1 / 6), size=50)
    prompts = np.random.default_rng([11, 1]).multinomial(4, np.full(4, 1 / 4), size=50)
    for draw, direction_counts, prompt_counts in zip(fast, directions, prompts, strict=True):
        taken = [
            (d, p)
            for d in range(6)
            for p in range(4)
            for _ in range(direction_counts[d])
            for _ in range(prompt_counts[p])
        ]
        assert len(taken) == 24
        slow = [math.fsum(sums[d, p, column] for d, p in taken) for column in range(2)]
        assert draw == pytest.approx(slow, abs=1e-10)


def test_directions_are_drawn_the_same_whether_prompts_are_clusters_or_not():
    table = np.zeros((7, 3, 1))
    table[:, :, 0] = np.arange(7)[:, None]
    one_way = bootstrap_sums(table.sum(axis=1), seed=5, draws=20)
    assert bootstrap_sums(table, seed=5, draws=20) == pytest.approx(one_way, abs=1e-10)


@pytest.mark.parametrize("shape", [(7, 2), (7, 5, 2)])
def test_chunks_and_kept_counts_are_the_same_stream(monkeypatch, shape):
    sums = np.random.default_rng(0).normal(size=shape)
    whole = bootstrap_sums(sums, seed=2, draws=101)
    assert whole.shape == (101, 2)
    assert (bootstrap_sums(sums, seed=2, draws=101) == whole).all()  # from the counts kept
    assert not (bootstrap_sums(sums, seed=3, draws=101) == whole).any()
    monkeypatch.setattr(uncertainty, "_KEPT", 0)
    monkeypatch.setattr(uncertainty, "_CHUNK", 70)  # 7 to 10 draws at a time
    assert bootstrap_sums(sums, seed=2, draws=101) == pytest.approx(whole, abs=1e-12)


def test_more_than_255_directions_are_counted_without_overflow():
    counts = bootstrap_sums(np.ones((70_000, 1)), seed=0, draws=3)
    assert counts.tolist() == [[70_000.0]] * 3


def test_interval_agrees_with_scipys_bootstrap_over_clusters():
    generator = np.random.default_rng(5)
    trials = generator.integers(2, 9, size=30).astype(float)
    events = generator.binomial(trials.astype(int), generator.beta(2, 3, size=30)).astype(float)
    ours = ratio_interval(events, trials, seed=0, draws=20_000)
    assert ours.method == BOOTSTRAP
    expanded = stats.norm.cdf(-math.sqrt(30 / 29) * stats.t.ppf(0.975, 29))
    scipys = stats.bootstrap(
        (np.arange(30),),
        lambda taken, axis=-1: events[taken].sum(axis) / trials[taken].sum(axis),
        n_resamples=20_000,
        confidence_level=1 - 2 * expanded,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high), abs=0.006)


def test_percentiles_leave_undefined_draws_out_and_keep_infinite_ones():
    values = np.r_[np.full(50, np.nan), np.arange(98.0), np.inf, np.inf, np.inf, np.inf, np.inf]
    low, high = percentile_interval(values, clusters=100)
    assert low == 2.0
    assert high == math.inf


@pytest.mark.parametrize("events", [0.0, 5.0])
def test_no_events_or_all_events_take_every_direction_as_one_trial(events):
    """40 directions x 5 trials: the bootstrap would have no width."""
    interval = ratio_interval(np.full(40, events), np.full(40, 5.0), seed=0)
    assert interval.method == DIRECTIONS_AS_TRIALS
    bound = 1 - 0.025 ** (1 / 40)  # Clopper and Pearson's closed form at 0 events of 40
    expected = (0.0, bound) if events == 0 else (1 - bound, 1.0)
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-12)


def test_unequal_directions_count_as_fewer():
    trials = np.array([10.0, 2.0, 2.0, 2.0])
    interval = ratio_interval(np.zeros(4), trials, seed=0)
    kish = 16**2 / (100 + 4 + 4 + 4)
    assert interval.high == pytest.approx(1 - 0.025 ** (1 / kish), abs=1e-12)


def test_directions_that_all_agree_have_width_too():
    interval = ratio_interval(np.full(40, 2.0), np.full(40, 4.0), seed=0)
    assert interval.method == DIRECTIONS_AS_TRIALS
    assert interval.high - interval.low > 0.2


def test_few_directions_with_events_take_korn_and_graubards_interval():
    events = np.r_[3.0, 2.0, 1.0, np.zeros(37)]
    trials = np.full(40, 5.0)
    interval = ratio_interval(events, trials, seed=0)
    assert interval.method == MEASURED
    rate = 6 / 200  # the slow definition of the linearised variance of a ratio, over the binomial one
    variance = 40 / 39 * math.fsum((e - rate * 5) ** 2 for e in events) / 200**2
    effect = variance / (rate * (1 - rate) / 200)
    assert effect > 1
    effective = 200 / effect * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 39)) ** 2
    expected = proportion_confint(rate * effective, effective, method="beta")
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-10)


def test_a_design_effect_below_1_counts_as_1():
    interval = ratio_interval(np.r_[np.ones(4), np.zeros(36)], np.full(40, 5.0), seed=0)
    effective = 200 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 39)) ** 2
    assert interval.high == pytest.approx(proportion_confint(effective / 50, effective, method="beta")[1], abs=1e-10)


def crossed(directions, prompts, rate, seed=0):
    """Events and trials [directions, prompts]; each direction got 3 to 5 of the prompts."""
    generator = np.random.default_rng(seed)
    trials = np.zeros((directions, prompts))
    for row in trials:
        row[generator.permutation(prompts)[: generator.integers(3, 6)]] = 1
    return generator.binomial(1, rate, trials.shape) * trials, trials


def test_two_way_percentiles_are_those_of_the_two_way_draws():
    events, trials = crossed(30, 12, 0.4)
    interval = ratio_interval(events, trials, seed=4, draws=500)
    drawn = bootstrap_sums(np.stack([events, trials], axis=-1), seed=4, draws=500)
    assert interval.method == CROSSED_BOOTSTRAP
    assert (interval.low, interval.high) == percentile_interval(drawn[:, 0] / drawn[:, 1], clusters=12)
    one_way = ratio_interval(events.sum(1), trials.sum(1), seed=4, draws=500)
    assert interval.high - interval.low > one_way.high - one_way.low


def test_few_prompts_with_events_add_both_variances():
    events, trials = crossed(30, 8, 0.4)  # enough directions, too few prompts for the bootstrap
    interval = ratio_interval(events, trials, seed=0)
    rate, n = events.sum() / trials.sum(), trials.sum()
    numbers = []
    for axis in (0, 1):
        a, m = events.sum(axis), trials.sum(axis)
        variance = len(m) / (len(m) - 1) * math.fsum((a - rate * m) ** 2) / n**2
        numbers.append(n / max(1, variance / (rate * (1 - rate) / n)))
    effective = 1 / (1 / numbers[0] + 1 / numbers[1]) * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 7)) ** 2
    assert interval.method == MEASURED
    expected = proportion_confint(rate * effective, effective, method="beta")
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-10)


def test_without_events_directions_and_prompts_are_the_trials():
    interval = ratio_interval(np.zeros((40, 10)), np.ones((40, 10)), seed=0)
    assert interval.method == CROSSED_AS_TRIALS
    assert interval.high == pytest.approx(1 - 0.025 ** (1 / 8), abs=1e-12)  # 1 / (1 / 40 + 1 / 10)


def test_cells_rows_and_columns_without_denominator_do_not_count():
    events, trials = crossed(30, 12, 0.4)
    wide_events, wide_trials = np.zeros((2, 35, 20))
    wide_events[3:33, 5:17], wide_trials[3:33, 5:17] = events, trials
    assert ratio_interval(events, trials, seed=0) == ratio_interval(wide_events, wide_trials, seed=0)


def test_one_prompt_says_nothing_of_others():
    interval = ratio_interval(np.full((40, 1), 2.0), np.full((40, 1), 5.0), seed=0)
    assert interval.high - interval.low > 0.9


def test_events_in_a_single_direction_measure_nothing():
    interval = ratio_interval(np.r_[1.0, np.zeros(39)], np.full(40, 5.0), seed=0)
    assert interval.method == DIRECTIONS_AS_TRIALS
    assert interval.high > ratio_interval(np.zeros(40), np.full(40, 5.0), seed=0).high


def test_directions_without_denominator_do_not_count():
    events, trials = np.r_[np.zeros(4), np.zeros(50)], np.r_[np.full(4, 3.0), np.zeros(50)]
    assert ratio_interval(events, trials, seed=0) == ratio_interval(np.zeros(4), np.full(4, 3.0), seed=0)
    assert ratio_interval(np.zeros(3), np.zeros(3), seed=0).method == UNDEFINED


def test_a_mean_at_its_bound_is_mapped_to_a_rate():
    scores = ratio_interval(np.full(12, 500.0), np.full(12, 5.0), seed=0, bounds=(0, 100))
    rates = ratio_interval(np.full(12, 5.0), np.full(12, 5.0), seed=0)
    assert (scores.low, scores.high) == pytest.approx((100 * rates.low, 100 * rates.high))
    change = ratio_interval(np.array([50.0]), np.array([1.0]), seed=0, bounds=(-100, 100))
    assert -100 <= change.low < 50 < change.high <= 100


def test_shapes_are_checked():
    with pytest.raises(UserError, match=r"one entry per cluster.*\(2,\) and \(3,\)"):
        ratio_interval(np.zeros(2), np.zeros(3), seed=0)
    with pytest.raises(UserError, match=r"tables of \[directions, prompts\]"):
        ratio_interval(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [10, 20, 40, 100])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("icc", [0.0, 0.1, 0.3])
def test_coverage_is_near_nominal(clusters, rate, icc):
    """Simulated: 400 studies of beta-binomial directions; 95 % +- 3 standard errors below, no bound above."""
    generator = np.random.default_rng(7)
    hits = 0
    for study in range(400):
        scale = (1 - icc) / icc if icc else None
        chance = generator.beta(rate * scale, (1 - rate) * scale, clusters) if scale else np.full(clusters, rate)
        events = generator.binomial(5, chance).astype(float)
        interval = ratio_interval(events, np.full(clusters, 5.0), seed=study, draws=1000)
        hits += interval.low <= rate <= interval.high
    assert hits / 400 > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)
