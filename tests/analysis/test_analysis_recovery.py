import math

import pytest

from esr.analysis.metrics import summarise
from esr.analysis.recovery import KINDS, recoveries


def rows_of(table):
    return {(row["condition"], row["kind"]): row for row in table.to_dict("records")}


def test_each_kind_counts_what_it_says(make_trials):
    """One response of every kind, in its own direction; the unscored one counts nowhere."""
    trials = make_trials(
        {"condition": "a", "direction": f"{k:02}", "prompt_index": 0, "seed": 0, "scores": scores}
        for k, scores in enumerate([[10, 90], [90, 10], [50], [50], [50], None])
    )
    trials["n_attempts"] = trials["n_attempts"].astype(float)
    trials["segments"] = [[] for _ in range(len(trials))]
    by_direction = trials.set_index("direction").index
    trials.loc[by_direction == "02", ["n_attempts", "last_score"]] = [2, 80]  # a bare turn for the better
    trials.at[trials.index[by_direction == "03"][0], "segments"] = [10, 20, 60]
    trials.at[trials.index[by_direction == "04"][0], "segments"] = [60, 20, 60]
    found = rows_of(recoveries(trials, draws=50))
    assert [kind for _, kind in found] == list(KINDS)
    explicit, pivot, gradual = found.values()
    assert (explicit["events"], explicit["counted"], explicit["began"]) == (1, 5, 2)
    assert (pivot["events"], pivot["counted"], pivot["began"]) == (1, 5, 1)
    assert (gradual["events"], gradual["counted"], gradual["directions"]) == (1, 2, 2)
    assert math.isnan(gradual["began"])


def test_explicit_is_the_esr_rate_with_its_interval(random_study):
    trials = random_study(24)
    trials["segments"] = [[] for _ in range(len(trials))]
    summary = summarise(trials, seed=3, draws=300).set_index("condition")
    found = rows_of(recoveries(trials, seed=3, draws=300))
    for name, row in summary.iterrows():
        mine = found[(name, "explicit")]
        same = ("esr_rate", "esr_rate_low", "esr_rate_high")
        assert [mine["rate"], mine["low"], mine["high"]] == pytest.approx([row[key] for key in same], abs=1e-12)
        assert mine["method"] == row["esr_rate_interval_method"]
        assert found[(name, "pivot")]["began"] == row["n_unannounced"]
        assert math.isnan(found[(name, "gradual")]["rate"])


def test_order_of_rows_does_not_matter(random_study):
    trials = random_study(12)
    trials["segments"] = [[1.0, 2.0, 3.0] for _ in range(len(trials))]
    one, two = (recoveries(t, draws=100) for t in (trials, trials.sample(frac=1, random_state=1)))
    assert one.equals(two)
