import itertools
import math

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy import stats

from esr.analysis.paired import (
    MOVER,
    compare,
    compare_all,
    exchange_p,
    holm,
    mover_difference,
    mover_ratio,
)
from esr.analysis.uncertainty import BOOTSTRAP, UNDEFINED, Interval
from esr.errors import UserError


def slow_exchange_p(columns):
    """Every exchange of whole clusters, by the definition."""

    def statistic(rows):
        a, m, b, n = (sum(row[k] for row in rows) for k in range(4))
        return None if m == 0 or n == 0 else a / m - b / n

    observed, extreme, count = abs(statistic(columns)), 0, 0
    for swaps in itertools.product([False, True], repeat=len(columns)):
        rows = [(*row[2:], *row[:2]) if swap else tuple(row) for row, swap in zip(columns, swaps, strict=True)]
        value = statistic(rows)
        extreme += value is None or abs(value) >= observed - 1e-12
        count += 1
    return extreme / count


@pytest.mark.parametrize("seed", range(6))
def test_exchange_p_is_the_slow_enumeration(seed):
    generator = np.random.default_rng(seed)
    trials = generator.integers(0, 5, size=(8, 2)).astype(float)
    events = generator.binomial(trials.astype(int), 0.4).astype(float)
    columns = np.stack([events[:, 0], trials[:, 0], events[:, 1], trials[:, 1]], axis=1)
    p, exact = exchange_p(columns, seed=0)
    assert exact
    assert p == pytest.approx(slow_exchange_p(columns.tolist()), abs=1e-10)


def test_an_exchange_without_a_denominator_counts_as_extreme():
    columns = np.array([[1.0, 2, 0, 0], [0, 0, 1, 3], [1, 1, 0, 0]])
    p, exact = exchange_p(columns, seed=0)
    assert exact
    assert p == pytest.approx(slow_exchange_p(columns.tolist()), abs=1e-10)
    undefined = 2 / 8  # all of the trials in one arm
    assert p >= undefined + 2 / 8


def test_exchange_p_is_scipys_permutation_test_when_all_pairs_are_scored():
    generator = np.random.default_rng(1)
    treatment, control = generator.integers(0, 6, size=(2, 10)).astype(float)
    columns = np.stack([treatment, np.full(10, 5.0), control, np.full(10, 5.0)], axis=1)
    expected = stats.permutation_test(
        (treatment, control),
        lambda x, y, axis=-1: (x - y).mean(axis),
        permutation_type="samples",
        n_resamples=np.inf,
    ).pvalue
    assert exchange_p(columns, seed=0) == (pytest.approx(expected, abs=1e-10), True)


def test_random_exchanges_come_near_the_exact_p_and_never_reach_0():
    generator = np.random.default_rng(2)
    differences = np.r_[generator.normal(0.4, 1, 13), 0.001]  # 14 clusters: one more than are enumerated
    columns = np.stack([differences, np.ones(14), np.zeros(14), np.ones(14)], axis=1)
    p, exact = exchange_p(columns, seed=0, draws=20_000)
    assert not exact
    assert p == pytest.approx(slow_exchange_p(columns.tolist()), abs=0.015)
    strong = np.stack([np.ones(30), np.ones(30), np.zeros(30), np.ones(30)], axis=1)
    assert exchange_p(strong, seed=0, draws=999) == (1 / 1000, False)


def test_no_difference_gives_p_1():
    assert exchange_p(np.ones((30, 4)), seed=0) == (1.0, True)


def test_mover_is_newcombes_published_example():
    """Newcombe 1998, 56/70 against 48/80: 0.2 with 0.0524 to 0.3339 by his method 10."""
    arms = [Interval(*stats.binomtest(k, n).proportion_ci(0.95, method="wilson"), "") for k, n in ((56, 70), (48, 80))]
    interval = mover_difference((56 / 70, 48 / 80), arms)
    assert (interval.low, interval.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_mover_ratio_inverts_when_the_arms_are_swapped():
    arms = [Interval(0.1, 0.4, ""), Interval(0.02, 0.09, "")]
    there = mover_ratio((0.2, 0.05), arms)
    back = mover_ratio((0.05, 0.2), arms[::-1])
    assert there.low == pytest.approx(1 / back.high)
    assert there.low < 4 < there.high
    assert mover_ratio((0.2, 0.05), [Interval(0.1, 0.4, ""), Interval(0.0, 0.09, "")]).high == math.inf


def test_holm_is_the_slow_definition():
    generator = np.random.default_rng(0)
    for size in (1, 2, 7):
        p = generator.uniform(size=size) ** 3
        slow = []
        for value in p:
            smaller = [other for other in p if other <= value]
            slow.append(min(1.0, max((size - sum(q < other for q in p)) * other for other in smaller)))
        assert holm(p.tolist()) == pytest.approx(slow, abs=1e-12)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    with pytest.raises(UserError, match=r"p-value lies in \[0, 1\]"):
        holm([0.1, math.nan])


def test_pairs_are_matched_and_the_rest_is_counted(make_trials):
    rows = [
        *({"condition": "a", "direction": "x", "prompt_index": p, "seed": p, "scores": [10, 90]} for p in range(4)),
        *({"condition": "b", "direction": "x", "prompt_index": p, "seed": p, "scores": [50]} for p in range(1, 6)),
    ]
    rows[1]["scores"] = None  # prompt 1 of a
    table = compare(make_trials(rows), "a", "b", draws=100).set_index("statistic")
    row = table.loc["mean_first_score"]
    assert row[["n_pairs", "n_unscored", "n_unmatched_treatment", "n_unmatched_control", "n_directions"]].tolist() == [
        2, 1, 1, 2, 1,
    ]  # fmt: skip
    assert row["difference"] == -40
    assert row["ratio"] == pytest.approx(0.2)
    assert table.loc["esr_rate", "difference"] == 1.0
    assert table.loc["esr_rate", "note"] == "no ratio to a control of 0"
    assert math.isnan(table.loc["esr_rate", "ratio"])
    improvement = table.loc["improvement_rate"]
    assert improvement["note"] == "no multi-attempt responses in control"
    assert improvement["difference_method"] == UNDEFINED
    assert math.isnan(improvement["p"])


def test_difference_uses_one_draw_of_directions_for_both_arms(make_trials):
    """Arms that agree trial by trial differ by exactly 0 in every draw, however uneven the directions are."""
    generator = np.random.default_rng(0)
    rows = []
    for direction in range(30):
        for prompt in range(4):
            scores = [10, 90] if generator.random() < direction / 30 else [50]
            rows += [
                {"condition": c, "direction": f"{direction}", "prompt_index": prompt, "seed": 0, "scores": scores}
                for c in "ab"
            ]
    row = compare(make_trials(rows), "a", "b", draws=500).set_index("statistic").loc["esr_rate"]
    assert row["difference_method"] == BOOTSTRAP
    assert (row["difference_low"], row["difference_high"], row["p"]) == (0, 0, 1)
    assert (row["ratio_low"], row["ratio_high"]) == (1, 1)


def test_an_arm_without_events_still_gives_the_difference_a_width(make_trials):
    rows = [
        {"condition": c, "direction": f"{d}", "prompt_index": p, "seed": 0, "scores": [10, 90] if c == "a" else [50]}
        for c in "ab" for d in range(12) for p in range(3)
    ]  # fmt: skip
    row = compare(make_trials(rows), "a", "b", draws=100).set_index("statistic").loc["esr_rate"]
    assert row["difference"] == 1.0
    assert row["difference_method"] == MOVER
    assert row["difference_low"] < 0.8


def test_compare_all_adjusts_over_the_whole_table(random_study):
    trials = random_study(10)
    third = trials[trials["condition"] == "plain"].assign(condition="third")
    third["trial"] = "third" + third["trial"]
    table = compare_all(pd.concat([trials, third]), "plain", draws=200)
    assert list(table["treatment"].unique()) == ["steered", "third"]
    defined = table["p"].notna()
    assert table.loc[defined, "p_holm"].tolist() == holm(table.loc[defined, "p"].tolist())
    assert table["p_holm"].isna().equals(table["p"].isna())


def test_order_of_rows_does_not_matter(random_study):
    trials = random_study()
    once = compare(trials, "steered", "plain", seed=4, draws=200)
    again = compare(trials.sample(frac=1, random_state=1), "steered", "plain", seed=4, draws=200)
    assert_frame_equal(once, again, check_exact=True)


def test_bad_comparisons_are_refused(random_study):
    trials = random_study(3)
    with pytest.raises(UserError, match=r"has trials.*none of 'absent'"):
        compare(trials, "absent", "plain")
    with pytest.raises(UserError, match=r"needs the control and another condition.*'absent'"):
        compare_all(trials, "absent")
    moved = trials.assign(seed=np.where(trials["condition"] == "plain", -1 - trials.index, trials["seed"]))
    with pytest.raises(UserError, match="share trials"):
        compare(moved, "steered", "plain")
    with pytest.raises(UserError, match=r"each \(direction, prompt_index, seed\) once"):
        compare(trials.assign(seed=0, prompt_index=0), "steered", "plain")
