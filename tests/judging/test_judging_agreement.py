"""Agreement statistics equal textbook values and their slow definitions; weights equal repetition."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from esr.errors import UserError
from esr.judging.agreement import (
    Estimate,
    cohen_kappa,
    krippendorff_alpha,
    mean_absolute_difference,
    pairwise_agreement,
    raw_agreement,
    spearman,
    stratified_sample,
)
from esr.judging.records import Attempt, Judgement, Scored, Unscored


def ones(x: Any) -> Any:
    return np.ones(len(x))


def array(*values: float) -> Any:
    return np.array(values, dtype=float)


def test_kappa_of_the_textbook() -> None:
    x = np.repeat([1.0, 1, 0, 0], [20, 5, 10, 15])
    y = np.repeat([1.0, 0, 1, 0], [20, 5, 10, 15])
    assert raw_agreement(x, y, ones(x)) == pytest.approx(0.7)
    assert cohen_kappa(x, y, ones(x)) == pytest.approx(0.4)


def test_alpha_of_krippendorffs_examples() -> None:
    x, y = array(0, 1, 0, 0, 0, 0, 0, 0, 1, 0), array(1, 1, 1, 0, 0, 1, 0, 0, 0, 0)
    assert krippendorff_alpha(x, y, ones(x), interval=False) == pytest.approx(0.095, abs=5e-4)
    letters = {letter: float(i) for i, letter in enumerate("abcde")}
    x, y = (np.array([letters[c] for c in word]) for word in ("aabbdcccedda", "babbbcccеddd".replace("е", "e")))
    assert krippendorff_alpha(x, y, ones(x), interval=False) == pytest.approx(0.692, abs=5e-4)


@pytest.mark.parametrize("interval", [False, True])
def test_alpha_equals_its_slow_definition(interval: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.integers(0, 4, (2, 15)).astype(float)

        def apart(a: float, b: float) -> float:
            return (a - b) ** 2 if interval else float(a != b)

        observed = np.mean([apart(a, b) for a, b in zip(x, y, strict=True)])
        expected = np.mean([apart(a, b) for a, b in itertools.permutations([*x, *y], 2)])
        slow = 1 - observed / expected
        assert krippendorff_alpha(x, y, ones(x), interval=interval) == pytest.approx(slow, abs=1e-12)


def test_rank_and_distance_equal_scipy_and_numpy() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        x, y = rng.integers(0, 6, (2, 30)).astype(float)
        slow = scipy.stats.spearmanr(x, y).statistic
        assert spearman(x, y, ones(x)) == pytest.approx(slow, abs=1e-12)
        assert mean_absolute_difference(x, y, ones(x)) == pytest.approx(np.mean(np.abs(x - y)), abs=1e-12)


STATISTICS = {
    "raw": raw_agreement,
    "kappa": cohen_kappa,
    "nominal": lambda x, y, w: krippendorff_alpha(x, y, w, interval=False),
    "interval": lambda x, y, w: krippendorff_alpha(x, y, w, interval=True),
    "spearman": spearman,
    "distance": mean_absolute_difference,
}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_weight_is_a_repetition(name: str) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 4, (2, 20)).astype(float)
    w = rng.integers(1, 5, 20)
    repeated = STATISTICS[name](np.repeat(x, w), np.repeat(y, w), np.ones(w.sum()))
    assert STATISTICS[name](x, y, w.astype(float)) == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize("name", STATISTICS)
def test_what_is_not_defined_is_nan(name: str) -> None:
    assert math.isnan(STATISTICS[name](array(), array(), array()))
    constant = array(1, 1, 1)
    value = STATISTICS[name](constant, constant, ones(constant))
    assert value == {"raw": 1, "distance": 0}.get(name) or math.isnan(value)


def scored(*scores: float, at: int = 50) -> Scored:
    attempts = [Attempt(0, at if len(scores) > 1 else 200, scores[0])]
    for i, score in enumerate(scores[1:]):
        attempts.append(Attempt(at + 10 * i, at + 10 * i + 10, score, kind="redo"))
    return Scored(tuple(attempts))


def frame(rows: list[tuple[str, str, Judgement, str]], **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["response", "judge", "judgement", "direction"]).assign(**columns)


def test_a_small_study_by_hand() -> None:
    a: list[Judgement] = [
        scored(10, 80), scored(20, 10), scored(90), scored(40, 60, at=100), scored(5), Unscored("refused"), scored(1)
    ]  # fmt: skip
    b: list[Judgement] = [
        scored(20, 70, at=54), scored(20, 30), scored(80), scored(50), scored(5), scored(3), Unscored("timeout")
    ]  # fmt: skip
    rows = [(f"r{i}", "a", j, f"d{i % 3}") for i, j in enumerate(a)]
    rows += [(f"r{i}", "b", j, f"d{i % 3}") for i, j in enumerate(b)]
    rows += [("only-a", "a", scored(1, 2), "d0")]
    (result,) = pairwise_agreement(frame(rows).sample(frac=1, random_state=1), seed=0, resamples=200)
    assert result.judges == ("a", "b")
    assert (result.n, result.directions) == (5, 3)
    assert result.unscored == (1, 1)
    assert result.reasons == {"refused": (1, 0), "timeout": (0, 1)}
    assert result.multi == (3, 2)
    assert result.raw.value == pytest.approx(0.8)
    assert result.kappa.value == pytest.approx((0.8 - (0.6 * 0.4 + 0.4 * 0.6)) / (1 - 0.48))
    assert (result.direction.value, result.direction.n) == (0.5, 2)
    assert result.score_difference.value == pytest.approx((10 + 0 + 10 + 10 + 0) / 5)
    assert (result.boundary.value, result.boundary.n) == (2.0, 2)
    assert result.score_rank.value == pytest.approx(
        scipy.stats.spearmanr([10, 20, 90, 40, 5], [20, 20, 80, 50, 5]).statistic
    )
    for estimate in (result.raw, result.kappa, result.score_rank, result.score_difference):
        assert estimate.low <= estimate.value <= estimate.high


def test_only_explicit_restarts_make_a_response_multi_attempt() -> None:
    pivot = Scored((Attempt(0, 9, 10), Attempt(9, 20, 90, kind="pivot"), Attempt(20, 30, 90, kind="redo")))
    alone = Scored((Attempt(0, 9, 10), Attempt(9, 20, 90, kind="pivot")))
    rows: list[tuple[str, str, Judgement, str]] = [("r", "a", pivot, "d"), ("r", "b", scored(10, 90, at=26), "d")]
    rows += [("s", "a", alone, "e"), ("s", "b", scored(10), "e")]
    (result,) = pairwise_agreement(frame(rows), seed=0, resamples=10)
    assert result.multi == (1, 1)
    assert result.raw.value == 1
    assert result.boundary.value == 6


def simulated(directions: int, per: int, seed: int) -> pd.DataFrame:
    """Two judges who disagree by direction: on some always, on the others never."""
    rng = np.random.default_rng(seed)
    rows = []
    for d in range(directions):
        disagree = rng.random() < 0.3
        for i in range(per):
            first = scored(10, 50) if rng.random() < 0.5 else scored(30)
            flipped = scored(30) if len(first.attempts) > 1 else scored(10, 50)
            rows += [(f"{d}-{i}", "x", first, str(d)), (f"{d}-{i}", "y", flipped if disagree else first, str(d))]
    return frame(rows)


def test_intervals_are_seeded_and_cluster_by_direction() -> None:
    study = simulated(20, 20, seed=5)
    (one,) = pairwise_agreement(study, seed=7, resamples=300)
    assert one == pairwise_agreement(study, seed=7, resamples=300)[0]
    assert one != pairwise_agreement(study, seed=8, resamples=300)[0]
    (alone,) = pairwise_agreement(study.assign(direction=study["response"]), seed=7, resamples=300)
    assert alone.raw.value == one.raw.value
    assert one.raw.high - one.raw.low > 2.5 * (alone.raw.high - alone.raw.low)


def test_clustered_intervals_cover() -> None:
    covered = 0
    for seed in range(40):
        (result,) = pairwise_agreement(simulated(25, 4, seed), seed=seed, resamples=200)
        covered += result.raw.low <= 0.7 <= result.raw.high
    assert covered >= 33


def test_one_direction_gives_no_interval() -> None:
    (result,) = pairwise_agreement(simulated(1, 10, 0), seed=0, resamples=10)
    assert not math.isnan(result.raw.value)
    assert math.isnan(result.raw.low)
    assert math.isnan(result.raw.high)


def test_judges_without_a_common_response() -> None:
    (result,) = pairwise_agreement(
        frame([("r", "a", scored(1), "d"), ("s", "b", scored(1), "d")]), seed=0, resamples=10
    )
    assert result.n == 0
    assert isinstance(result.raw, Estimate)
    assert math.isnan(result.raw.value)


def test_three_judges_are_three_pairs() -> None:
    rows = [(f"r{i}", j, scored(i), f"d{i}") for i in range(4) for j in "cab"]
    assert [r.judges for r in pairwise_agreement(frame(rows), seed=0, resamples=5)] == [
        ("a", "b"), ("a", "c"), ("b", "c")
    ]  # fmt: skip


def test_a_stratified_sample_keeps_all_restarts_and_its_weights_restore_the_study() -> None:
    multi = {i: i % 10 == 0 for i in range(1000)}
    sample = stratified_sample(multi, rest=90, seed=4)
    assert sample == stratified_sample(multi, rest=90, seed=4)
    assert sample.keys() != stratified_sample(multi, rest=90, seed=5).keys()
    assert {i for i, m in multi.items() if m} <= sample.keys()
    assert len(sample) == 190
    assert sum(sample.values()) == pytest.approx(1000)
    assert stratified_sample(multi, rest=2000, seed=4) == dict.fromkeys(multi, 1.0)


def test_a_sample_by_place_keeps_all_conditions_of_a_place_and_a_larger_one_holds_a_smaller() -> None:
    rng = np.random.default_rng(2)
    places = {(place, arm): place for place in range(300) for arm in range(1 + place % 3)}
    multi = {id: bool(rng.random() < 0.2) for id in places}
    others = {id for id, m in multi.items() if not m}
    small, large = (stratified_sample(multi, rest=rest, seed=3, places=places) for rest in (60, 150))
    assert small.keys() < large.keys()
    drawn = {places[id] for id in small.keys() & others}
    assert small.keys() & others == {id for id in others if places[id] in drawn}
    assert 45 <= len(small.keys() & others) <= 75
    assert {small[id] for id in small.keys() & others} == {len({places[id] for id in others}) / len(drawn)}
    estimates = [sum(stratified_sample(multi, rest=60, seed=seed, places=places).values()) for seed in range(200)]
    assert np.mean(estimates) == pytest.approx(len(multi), abs=4 * np.std(estimates) / 200**0.5)


def test_reweighting_removes_the_bias_of_the_sample() -> None:
    rng = np.random.default_rng(6)
    first = {i: bool(rng.random() < 0.08) for i in range(4000)}
    second = {i: (m if rng.random() < (0.6 if m else 0.98) else not m) for i, m in first.items()}
    truth = np.mean([first[i] == second[i] for i in first])
    sample = stratified_sample(first, rest=800, seed=1)

    def judged(multi: bool) -> Scored:
        return scored(10, 50) if multi else scored(30)

    rows = [(str(i), "one", judged(first[i]), str(i % 50)) for i in first]
    rows += [(str(i), "two", judged(second[i]), str(i % 50)) for i in sample]
    weights = [1.0] * len(first) + list(sample.values())
    (weighted,) = pairwise_agreement(frame(rows, weight=weights), seed=0, resamples=200)
    (naive,) = pairwise_agreement(frame(rows), seed=0, resamples=10)
    assert weighted.raw.low <= truth <= weighted.raw.high
    assert abs(weighted.raw.value - truth) < 0.01
    assert abs(naive.raw.value - truth) > 0.03


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (frame([]).drop(columns="direction"), "without direction"),
        (frame([("r", "a", scored(1), "d")]), "at least two judges. Got 1"),
        (frame([("r", "a", scored(1), "d")] * 2), "judges a response once. Got r twice by a"),
        (frame([("r", "a", scored(1), "d"), ("r", "b", scored(1), "d")], weight=[1, 0]), "weights are positive"),
    ],
)
def test_frames_that_cannot_be_used(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(UserError) as error:
        pairwise_agreement(table, seed=0)
    assert message in str(error.value)


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="at least one response"):
        stratified_sample({1: True}, rest=0, seed=0)
