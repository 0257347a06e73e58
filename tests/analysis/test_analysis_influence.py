import math

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from esr.analysis.influence import influence, influence_on_difference
from esr.analysis.metrics import STATISTICS, summarise
from esr.analysis.paired import compare
from esr.errors import UserError

KEYS = [statistic.key for statistic in STATISTICS]


@pytest.mark.parametrize("statistic", KEYS)
def test_every_row_is_the_statistic_of_the_study_without_that_direction(random_study, statistic):
    trials = random_study(7)
    table = influence(trials, statistic, "steered")
    whole = summarise(trials, draws=10).set_index("condition").loc["steered"]
    assert (table["value"] == whole[statistic]).all()
    assert table["n"].sum() == whole[f"{statistic}_denominator"]
    assert (table["n"] > 0).all()
    assert table["direction"].is_unique
    for row in table.to_dict("records"):
        rest = summarise(trials[trials["direction"] != row["direction"]], draws=10).set_index("condition")
        assert row["without"] == pytest.approx(rest.loc["steered", statistic], abs=1e-10)
        assert row["change"] == row["without"] - row["value"]
    assert table["change"].abs().is_monotonic_decreasing


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("statistic", KEYS)
def test_a_difference_without_a_direction_is_the_comparison_without_it(random_study, statistic, paired):
    trials = random_study(6)
    table = influence_on_difference(trials, statistic, "steered", "plain", paired=paired)
    for row in table.to_dict("records"):
        rest = trials[trials["direction"] != row["direction"]]
        slow = compare(rest, "steered", "plain", paired=paired, draws=10).set_index("statistic").loc[statistic]
        assert row["without"] == pytest.approx(slow["difference"], abs=1e-10, nan_ok=True)
    whole = compare(trials, "steered", "plain", paired=paired, draws=10).set_index("statistic").loc[statistic]
    assert table["difference"].tolist() == pytest.approx([whole["difference"]] * len(table), abs=1e-10)
    assert table["n_treatment"].sum() == whole["n_treatment"]


def test_the_direction_that_carries_the_rate_comes_first(make_trials):
    rows = [
        {"direction": f"latent:{d}", "prompt_index": p, "scores": [10, 90] if d == 3 else [50]}
        for d in range(5)
        for p in range(4)
    ]
    table = influence(make_trials(rows), "esr_rate", "steered")
    assert table.loc[0, ["direction", "value", "without", "change"]].tolist() == ["latent:3", 0.2, 0.0, -0.2]
    assert table["without"].max() == 0.25


def test_without_the_only_direction_nothing_is_left(make_trials):
    rows = [
        *({"direction": "a", "prompt_index": p, "scores": [10, 90]} for p in range(3)),
        {"direction": "b", "scores": [50]},
        {"direction": "c", "scores": None},
    ]
    table = influence(make_trials(rows), "improvement_rate", "steered")
    assert table["direction"].tolist() == ["a"]  # the others have no multi-attempt response
    assert math.isnan(table.loc[0, "without"])


def test_order_of_rows_does_not_matter(random_study):
    trials = random_study()
    shuffled = trials.sample(frac=1, random_state=3)
    assert_frame_equal(influence(trials, "esr_rate", "steered"), influence(shuffled, "esr_rate", "steered"))
    once, again = (influence_on_difference(t, "mean_first_score", "steered", "plain") for t in (trials, shuffled))
    assert_frame_equal(once, again, check_exact=True)


def test_what_is_not_there_is_refused(random_study):
    trials = random_study(3)
    with pytest.raises(UserError, match=r"one of multi_attempt_rate, .*Got 'esr'"):
        influence(trials, "esr", "steered")
    with pytest.raises(UserError, match=r"condition has trials.*'absent'"):
        influence(trials, "esr_rate", "absent")
    moved = trials.assign(seed=np.where(trials["condition"] == "plain", -1 - trials.index, trials["seed"]))
    with pytest.raises(UserError, match="share trials"):
        influence_on_difference(moved, "esr_rate", "steered", "plain", paired=True)
    assert len(influence_on_difference(moved, "esr_rate", "steered", "plain")) == 3
