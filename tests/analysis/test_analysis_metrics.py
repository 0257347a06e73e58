import math

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from esr.analysis.metrics import STATISTICS, summarise
from esr.analysis.uncertainty import (
    BOOTSTRAP,
    CROSSED_BOOTSTRAP,
    DIRECTIONS_AS_TRIALS,
    UNDEFINED,
    ratio_interval,
    wilson,
)
from esr.errors import UserError


@pytest.fixture
def by_hand(make_trials):
    """Ten trials over three directions whose every rate is known by counting."""
    a, b, c = ({"direction": f"latent:{name}"} for name in "abc")
    return make_trials(
        [
            a | {"scores": [10, 90]},  # restarts, improves
            a | {"scores": [20, 20]},  # restarts, no better
            a | {"scores": [30]},
            a | {"scores": None, "reason": "timeout"},
            b | {"scores": [40, 100], "degraded": True},  # restarts, improves
            b | {"scores": [50], "n_attempts": 2},  # a pivot: a second attempt, not announced
            b | {"scores": [60], "degraded": True},
            c | {"scores": [70, 0], "promoted": True},  # restarts, worse
            c | {"scores": [80], "promoted": True},
            c | {"scores": None, "reason": "refused", "promoted": True, "degraded": True},
        ]
    )


def test_counts_and_rates_by_hand(by_hand):
    (row,) = summarise(by_hand, draws=200).to_dict("records")
    assert {k: row[k] for k in row if k.startswith("n_")} == {
        "n_trials": 10,
        "n_scored": 8,
        "n_unscored": 2,
        "n_degraded": 3,
        "n_directions": 3,
        "n_promoted_directions": 1,
        "n_prompts": 1,
        "n_multi_attempt": 4,
        "n_unannounced": 1,
    }
    assert row["unscored_reasons"] == {"refused": 1, "timeout": 1}
    assert (row["multi_attempt_rate_numerator"], row["multi_attempt_rate_denominator"]) == (4, 8)
    assert (row["improvement_rate_numerator"], row["improvement_rate_denominator"]) == (2, 4)
    assert (row["esr_rate_numerator"], row["esr_rate_denominator"]) == (2, 8)
    assert row["esr_rate"] == 0.25
    assert row["mean_improvement"] == pytest.approx((80 + 0 + 60 - 70) / 4)
    assert row["mean_first_score"] == pytest.approx(sum(range(10, 90, 10)) / 8)
    assert (row["esr_rate_wilson_low"], row["esr_rate_wilson_high"]) == wilson(2, 8)


def test_rates_without_degraded_and_without_promoted_directions(by_hand):
    (row,) = summarise(by_hand, draws=200).to_dict("records")
    key = "esr_rate_without_degraded"
    assert (row[f"{key}_numerator"], row[f"{key}_denominator"]) == (1, 6)
    key = "esr_rate_without_promoted"
    assert (row[f"{key}_numerator"], row[f"{key}_denominator"]) == (2, 6)
    assert row["mean_improvement_without_promoted"] == pytest.approx((80 + 0 + 60) / 3)


def test_unscored_trials_are_in_no_denominator(by_hand):
    scored = by_hand[by_hand["state"] == "scored"]
    with_them, without = (summarise(frame, draws=200).iloc[0] for frame in (by_hand, scored))
    for statistic in STATISTICS:
        for column in ("", "_low", "_high", "_denominator"):
            assert with_them[statistic.key + column] == without[statistic.key + column]


def test_no_denominator_is_nan_with_its_reason_never_0(make_trials):
    (row,) = summarise(make_trials([{"scores": [90]}, {"scores": [80]}]), draws=50).to_dict("records")
    assert math.isnan(row["improvement_rate"])
    assert math.isnan(row["improvement_rate_low"])
    assert math.isnan(row["improvement_rate_wilson_high"])
    assert row["improvement_rate_note"] == "no multi-attempt responses"
    assert row["improvement_rate_interval_method"] == UNDEFINED
    assert row["esr_rate"] == 0.0
    assert row["esr_rate_interval_method"] == DIRECTIONS_AS_TRIALS
    (row,) = summarise(make_trials([{"scores": None}]), draws=50).to_dict("records")
    assert math.isnan(row["esr_rate"])
    assert row["esr_rate_note"] == "no scored responses"


def test_nothing_left_in_a_subset_is_said(make_trials):
    (row,) = summarise(make_trials([{"scores": [90], "promoted": True}]), draws=50).to_dict("records")
    assert math.isnan(row["esr_rate_without_promoted"])
    assert row["esr_rate_without_promoted_note"] == "no scored responses"


def test_intervals_equal_the_slow_definition(random_study):
    """Sums per direction by plain loops, then the interval of each statistic on its own."""
    trials = random_study()
    summary = summarise(trials, seed=3, draws=500).set_index("condition")
    for condition, rows in trials.groupby("condition"):
        for statistic in STATISTICS:
            sums: dict[str, list[float]] = {}
            for row in rows.to_dict("records"):
                total = sums.setdefault(row["direction"], [0.0, 0.0])
                if row["state"] == "scored" and (statistic.over == "scored" or row["multi_attempt"]):
                    total[0] += float(row[statistic.column])
                    total[1] += 1
            numerators, denominators = np.array([sums[key] for key in sorted(sums)]).T
            shown = summary.loc[condition]
            assert shown[statistic.key] == pytest.approx(numerators.sum() / denominators.sum(), abs=1e-10)
            interval = ratio_interval(numerators, denominators, seed=3, draws=500, bounds=statistic.bounds)
            assert shown[f"{statistic.key}_interval_method"] == interval.method
            if interval.method != BOOTSTRAP or (denominators > 0).all():  # the same clusters are drawn
                ends = (shown[f"{statistic.key}_low"], shown[f"{statistic.key}_high"])
                assert ends == pytest.approx((interval.low, interval.high), abs=1e-10)


def test_results_depend_neither_on_row_order_nor_on_other_conditions(random_study):
    trials = random_study()
    once = summarise(trials, seed=1, draws=300)
    for seed in range(3):
        assert_frame_equal(
            once, summarise(trials.sample(frac=1, random_state=seed), seed=1, draws=300), check_exact=True
        )
    alone = summarise(trials[trials["condition"] == "steered"], seed=1, draws=300)
    assert_frame_equal(alone, once[once["condition"] == "steered"].reset_index(drop=True), check_exact=True)
    assert list(once["condition"]) == ["plain", "steered"]


def test_crossed_intervals_are_those_of_the_tables_by_direction_and_prompt(random_study):
    trials = random_study(24, 12)
    summary = summarise(trials, clusters="direction x prompt", seed=3, draws=300).set_index("condition")
    for condition, rows in trials[trials["state"] == "scored"].groupby("condition"):
        cells = rows.pivot_table(index="direction", columns="prompt_index", values="improved", aggfunc=["sum", "count"])
        events, counts = (cells[name].fillna(0).to_numpy(float) for name in ("sum", "count"))
        interval = ratio_interval(events, counts, seed=3, draws=300)
        row = summary.loc[condition]
        assert row["esr_rate_interval_method"] == interval.method
        assert (row["esr_rate_low"], row["esr_rate_high"]) == pytest.approx((interval.low, interval.high), abs=1e-10)
    assert summary.loc["steered", "esr_rate_interval_method"] == CROSSED_BOOTSTRAP
    shuffled = summarise(trials.sample(frac=1, random_state=1), clusters="direction x prompt", seed=3, draws=300)
    assert_frame_equal(summary.reset_index(), shuffled, check_exact=True)
    with pytest.raises(UserError, match=r"clusters are 'direction' or .*Got 'prompt'"):
        summarise(trials, clusters="prompt")


def test_interval_depends_on_the_seed_only_a_little(random_study):
    trials = random_study()
    first, second = (summarise(trials, seed=seed).set_index("condition").loc["steered"] for seed in (1, 2))
    assert first["esr_rate_low"] == pytest.approx(second["esr_rate_low"], abs=0.01)


def test_text_that_utf8_cannot_hold_passes_through_but_not_as_a_key(make_trials):
    trials = make_trials([{"scores": [90]}, {"scores": None}])
    trials["reason"] = pd.Series(["", "why \udfff"], dtype=object)
    (row,) = summarise(trials, draws=20).to_dict("records")
    trials["condition"] = pd.Series(["bad \ud800"] * 2, dtype=object)
    with pytest.raises(UserError, match=r"column condition holds text that UTF-8 can encode.*bad .ud800"):
        summarise(trials)
    assert row["unscored_reasons"] == {"why \udfff": 1}


def test_bad_frames_are_refused_with_the_rule(by_hand):
    with pytest.raises(UserError, match=r"at least one trial.*empty frame.*Run the study"):
        summarise(by_hand.head(0))
    with pytest.raises(UserError, match=r"documented columns.*no degraded, seed"):
        summarise(by_hand.drop(columns=["seed", "degraded"]))
    with pytest.raises(UserError, match=r"occurs once"):
        summarise(pd.concat([by_hand, by_hand.tail(1)]))
    broken = {
        "scored or unscored.*'lost'": {"state": "lost"},
        "first score from 0 to 100.*10 that": {"first_score": 101.0, "state": "scored"},
        "neither multi-attempt nor improved": {"state": "unscored"},
        "improved trial is multi-attempt": {"multi_attempt": False},
        "has an improvement from": {"improvement": np.nan},
        "exactly when its improvement is positive": {"improvement": -5.0},
    }
    for message, change in broken.items():
        with pytest.raises(UserError, match=message):
            summarise(by_hand.assign(**change))
