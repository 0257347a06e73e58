"""The published bisection, against a slow one written from its definition with plain loops."""

import math
import random

import pytest

from esr.studies.calibration.bisection import GRID_POINTS, Bisection, sign_probability
from esr.studies.calibration.evidence import Evidence
from esr.studies.calibration.records import CalibrationSettings


def settings(**changes):
    return CalibrationSettings(
        **({"method": "bisection", "lower": 2, "upper": 100, "prior_mean": 7, "prior_sd": 5} | changes)
    )


def slow_beta_tail(a, b, x):
    """Mass of Beta(a, b) above x: Simpson's rule over the angle t with value sin^2 t, where nothing is singular."""
    log_norm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    low, high, n = math.asin(math.sqrt(x)), math.pi / 2, 4000

    def density(t):
        return 2 * math.exp(log_norm) * math.sin(t) ** (2 * a - 1) * max(math.cos(t), 0) ** (2 * b - 1)

    total = 0.0
    for k in range(n + 1):
        weight = 1 if k in (0, n) else 4 if k % 2 else 2
        total += weight * density(low + (high - low) * k / n)
    return total * (high - low) / n / 3


class SlowBisection:
    """One direction, in lists."""

    def __init__(self, s):
        self.s = s
        self.grid = [s.lower + (s.upper - s.lower) * k / (GRID_POINTS - 1) for k in range(GRID_POINTS)]
        self.density = [math.exp(-((g - s.prior_mean) ** 2) / (2 * s.prior_sd**2)) for g in self.grid]
        self.normalise()

    def normalise(self):
        total = math.fsum(self.density)
        self.density = [d / total for d in self.density]

    def reach(self, q):
        so_far = 0.0
        for k, d in enumerate(self.density):
            so_far += d
            if so_far >= q:
                return k
        raise AssertionError

    def tell(self, scores):
        at, share, target = self.reach(0.5), sum(scores) / len(scores) / 100, self.s.target / 100
        weight = self.s.sign_weight * len(scores) / self.s.repeats
        above = slow_beta_tail(0.5 + weight * share, 0.5 + weight * (1 - share), target)
        higher = share >= target
        p = max(0.5, above if higher else 1 - above)
        for k in range(GRID_POINTS):
            if k == at:
                self.density[k] *= math.sqrt(p * (1 - p))
            elif (k > at) == higher:
                self.density[k] *= p
            else:
                self.density[k] *= 1 - p
        self.normalise()


@pytest.mark.parametrize("changes", [{}, {"upper": 12, "target": 55, "repeats": 4}, {"sign_weight": 2, "rounds": 6}])
def test_agrees_with_the_slow_definition(changes):
    s, rng = settings(**changes), random.Random(5)
    fast, slow = Bisection(s, 3), [SlowBisection(s) for _ in range(3)]
    thresholds = [4.0, 8.0, 11.0]
    for number in range(s.rounds):
        probes = fast.ask()
        assert [(p.direction, p.round, p.repeats) for p in probes] == [(j, number, s.repeats) for j in range(3)]
        for probe in probes:
            oracle = slow[probe.direction]
            assert probe.boost == pytest.approx(oracle.grid[oracle.reach(0.5)], rel=1e-5)
            share = 1 / (1 + (probe.boost / thresholds[probe.direction]) ** 3)
            scores = [88.0 if rng.random() < share else 1.0 for _ in range(s.repeats - (number == 2))]
            fast.tell(probe, scores)
            oracle.tell(scores)
    assert fast.ask() == []
    for j, (result, oracle) in enumerate(zip(fast.results(), slow, strict=True)):
        assert max(abs(a - b) for a, b in zip(fast.density[j], oracle.density, strict=True)) < 1e-9
        found = [oracle.grid[oracle.reach(q)] for q in (0.025, 0.5, 0.975)]
        assert [result.low, fast.grid[fast.quantile(j, 0.5)], result.high] == pytest.approx(found, rel=1e-12)
        assert result.threshold is None or result.threshold == pytest.approx(found[1], rel=1e-12)
        assert result.generations == s.rounds * s.repeats


@pytest.mark.parametrize("share", [0.0, 0.2, 0.3, 0.31, 0.6, 1.0])
@pytest.mark.parametrize("target", [0.3, 0.8])
def test_sign_probability_is_the_beta_tail_on_the_side_seen(share, target):
    above = slow_beta_tail(0.5 + 5 * share, 0.5 + 5 * (1 - share), target)
    expected = max(0.5, above if share >= target else 1 - above)
    assert sign_probability(share, target, 5) == pytest.approx(expected, abs=1e-6)


def test_sign_probability_is_never_below_a_half_nor_certain():
    assert slow_beta_tail(0.5 + 5 * 0.29, 0.5 + 5 * 0.71, 0.30) > 0.5  # seen below the target, most mass above it
    assert sign_probability(0.29, 0.30, 5) == 0.5
    assert sign_probability(1.0, 0.01, 1e6) < 1


def answer(scores_at, **changes):
    """Result for one direction whose every score is scores_at(boost)."""
    search = Bisection(settings(**changes), 1)
    while probes := search.ask():
        for probe in probes:
            search.tell(probe, scores_at(probe))
    return search.results()[0]


def test_finds_a_clear_threshold():
    result = answer(lambda p: [88.0 if p.boost < 9 else 2.0] * 5)
    assert result.status == "calibrated"
    assert result.threshold == pytest.approx(9, rel=0.02)
    assert result.low < 9 < result.high
    assert result.predicted is None
    assert result.reason == ""


def test_a_direction_that_never_falls_is_uncalibrated_wherever_the_search_ended():
    result = answer(lambda p: [71.0] * 5)
    assert (result.status, result.threshold) == ("uncalibrated", None)
    assert result.reason.startswith("mean score 71 at the highest boost tried, 22.")  # the prior's tail, not the bound
    assert result.reason.endswith("stays above the target 30 (upper bound 100)")


def test_a_direction_that_is_off_topic_from_the_start_is_uncalibrated():
    result = answer(lambda p: [4.0] * 5)
    assert (result.status, result.threshold) == ("uncalibrated", None)
    assert result.reason.startswith("mean score 4 at the lowest boost tried, 2.")
    assert result.reason.endswith("already below the target 30 (lower bound 2)")


def test_rounds_without_a_score_are_spent_and_leave_the_density_alone():
    search = Bisection(settings(), 1)
    before = search.density.copy()
    first = search.ask()
    search.tell(first[0], [])
    assert (search.density == before).all()
    assert search.ask()[0].boost == first[0].boost
    result = answer(lambda p: [])
    assert (result.status, result.generations) == ("uncalibrated", 50)
    assert result.reason == "none of 50 generations was scored"
    assert answer(lambda p: [] if p.round % 2 else [88.0 if p.boost < 9 else 2.0] * 5).status == "calibrated"


def test_a_mean_exactly_on_the_target_says_higher():
    search = Bisection(settings(), 1)
    first = search.ask()[0]
    search.tell(first, [30.0] * 5)
    assert search.ask()[0].boost > first.boost


def test_evidence_contradicts_an_answer_beyond_three_standard_errors():
    """At most sqrt(30 * 70) points scatter: 10 scores may be off by 43.5 points, no more."""
    for score, text in ((73.0, ""), (74.0, "mean score 74 at boosts from 5 up stays above the target 30")):
        evidence = Evidence()
        evidence.add(4.0, (90.0,) * 50, 50)
        evidence.add(6.0, (score,) * 10, 10)
        assert evidence.contradiction(5.0, 30) == text
    evidence.add(3.0, (0.0,) * 200, 200)
    assert evidence.contradiction(5.5, 45) == "mean score 18 at boosts up to 5.5 is already below the target 45"


def test_a_curve_that_rises_contradicts_its_answer():
    """Low scores below, high ones above: the sides are seen, but the wrong way round."""
    result = answer(lambda p: [2.0] * 5 if p.boost < 7 or p.round < 3 else [90.0] * 5, rounds=20)
    assert result.status == "uncalibrated"
    assert "the target 30" in result.reason


def test_a_prior_far_narrower_than_the_grid_step_does_not_underflow():
    result = answer(lambda p: [88.0 if p.boost < 50 else 2.0] * 5, prior_mean=50, prior_sd=1e-4)
    assert 2 <= result.low <= result.high <= 100
