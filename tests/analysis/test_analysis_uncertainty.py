import math

import numpy as np
import pytest
from scipy import stats

from esr.analysis.uncertainty import (
    BOOTSTRAP,
    UNDEFINED,
    WILSON_CLUSTERS,
    WILSON_MEASURED,
    bootstrap_sums,
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


def test_bootstrap_in_chunks_is_the_same_stream():
    sums = np.ones((5000, 1)) * np.arange(5000)[:, None]  # 5,000 clusters: 800 draws a chunk
    whole = bootstrap_sums(sums, seed=2, draws=1000)
    assert whole.shape == (1000, 1)
    generator = np.random.default_rng(2)
    rows = [generator.multinomial(5000, np.full(5000, 1 / 5000)) @ sums[:, 0] for _ in range(801)]
    assert whole[[0, 799, 800], 0] == pytest.approx([rows[0], rows[799], rows[800]], abs=1e-6)


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
def test_no_events_or_all_events_take_wilson_on_the_number_of_directions(events):
    """40 directions x 5 trials: the bootstrap would have no width."""
    interval = ratio_interval(np.full(40, events), np.full(40, 5.0), seed=0)
    quantile = stats.t.ppf(0.975, 39)
    assert interval.method == WILSON_CLUSTERS
    bound = quantile**2 / (40 + quantile**2)  # Wilson's closed form at 0 events
    expected = (0.0, bound) if events == 0 else (1 - bound, 1.0)
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-12)


def test_unequal_directions_count_as_fewer():
    trials = np.array([10.0, 2.0, 2.0, 2.0])
    interval = ratio_interval(np.zeros(4), trials, seed=0)
    kish = 16**2 / (100 + 4 + 4 + 4)
    quantile = stats.t.ppf(0.975, 3)
    assert interval.high == pytest.approx(quantile**2 / (kish + quantile**2), abs=1e-12)


def test_directions_that_all_agree_have_width_too():
    interval = ratio_interval(np.full(40, 2.0), np.full(40, 4.0), seed=0)
    assert interval.method == WILSON_CLUSTERS
    assert interval.high - interval.low > 0.2


def test_few_directions_with_events_take_wilson_with_the_measured_design_effect():
    events = np.r_[3.0, 2.0, 1.0, np.zeros(37)]
    trials = np.full(40, 5.0)
    interval = ratio_interval(events, trials, seed=0)
    assert interval.method == WILSON_MEASURED
    rate = 6 / 200  # the slow definition of the linearised variance of a ratio, over the binomial one
    variance = 40 / 39 * math.fsum((e - rate * 5) ** 2 for e in events) / 200**2
    effect = variance / (rate * (1 - rate) / 200)
    assert effect > 1
    expected = wilson_effective(rate, 200 / effect, stats.t.ppf(0.975, 39))
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-10)


def test_events_in_a_single_direction_measure_nothing():
    interval = ratio_interval(np.r_[1.0, np.zeros(39)], np.full(40, 5.0), seed=0)
    assert interval.method == WILSON_CLUSTERS
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
