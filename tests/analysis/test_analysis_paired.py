import itertools
import math

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from esr.analysis.metrics import STATISTICS
from esr.analysis.paired import (
    MIN_EVENTS,
    MOVER,
    MOVER_CHANGES,
    compare,
    compare_all,
    compare_pairs,
    exchange_p,
    holm,
    interval_p,
    mover_difference,
    mover_ratio,
)
from esr.analysis.uncertainty import (
    BOOTSTRAP,
    CROSSED_BOOTSTRAP,
    UNDEFINED,
    Interval,
    clopper_pearson,
    percentile_interval,
    ratio_interval,
)
from esr.errors import UserError
from esr.judging.agreement import stratified_sample


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


def test_mover_is_statsmodels_newcombe():
    for (a, m), (b, n) in [((7, 40), (3, 35)), ((0, 20), (5, 20)), ((19, 20), (1, 90))]:
        arms = [
            Interval(*stats.binomtest(k, size).proportion_ci(0.95, method="wilson"), "") for k, size in ((a, m), (b, n))
        ]
        ours = mover_difference((a / m, b / n), arms)
        theirs = confint_proportions_2indep(a, m, b, n, compare="diff", method="newcomb")
        assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-10)


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
        assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-10)
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


def arms_of(make_trials, treated, plain):
    """Conditions a and b of directions x prompts whose events are given as [directions, prompts]."""
    return make_trials(
        {"condition": c, "direction": f"{d:02}", "prompt_index": p, "seed": 0, "scores": [10, 90] if event else [50]}
        for c, events in (("a", treated), ("b", plain))
        for d, row in enumerate(np.asarray(events, bool))
        for p, event in enumerate(row)
    )


def test_difference_uses_one_draw_of_directions_for_both_arms(make_trials):
    """The treatment has one event more in every direction, so every draw differs by the same, however uneven the
    directions are.
    """
    plain = np.arange(30)[:, None] // 10 > np.arange(4)  # 0 to 2 of 4
    treated = np.arange(30)[:, None] // 10 + 1 > np.arange(4)
    row = compare(arms_of(make_trials, treated, plain), "a", "b", draws=500).set_index("statistic").loc["esr_rate"]
    assert row["difference_method"] == BOOTSTRAP
    assert row[["difference_low", "difference_high"]].tolist() == pytest.approx([0.25, 0.25], abs=1e-12)
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 0), (5, 4)])
def test_arms_that_hardly_differ_take_gains_and_losses_as_two_rates(make_trials, gained, lost):
    """The bootstrap would know no change it has not seen: for equal arms, no width at all."""
    plain = np.arange(40)[:, None] % 5 > np.arange(5)
    treated = plain.copy()
    treated[1 : 5 * gained : 5, 4] = True  # one gain in as many directions
    treated[4 : 5 * lost : 5, 0] = False
    row = compare(arms_of(make_trials, treated, plain), "a", "b", draws=500).set_index("statistic").loc["esr_rate"]
    assert row["difference_method"] == MOVER_CHANGES
    rates = [ratio_interval(np.r_[np.ones(k), np.zeros(40 - k)], np.full(40, 5.0), seed=0) for k in (gained, lost)]
    expected = mover_difference((gained / 200, lost / 200), rates)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert row["difference_low"] < 0 < row["difference_high"]
    assert row["ratio_method"] == MOVER
    if gained == lost:
        assert row["difference_high"] == pytest.approx(1 - 0.025 ** (1 / 40))
        assert row["p"] == 1


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


def test_pairs_of_conditions_are_compared_in_the_order_given(random_study):
    trials = random_study(10)
    table = compare_pairs(trials, [("plain", "steered"), ("steered", "plain")], draws=200)
    assert list(table["treatment"].unique()) == ["plain", "steered"]
    first, second = (table[table["treatment"] == name].reset_index() for name in ("plain", "steered"))
    assert first["difference"].tolist() == pytest.approx((-second["difference"]).tolist(), abs=1e-12, nan_ok=True)
    defined = table["p"].notna()
    assert table.loc[defined, "p_holm"].tolist() == holm(table.loc[defined, "p"].tolist())
    alone = compare(trials, "steered", "plain", draws=200)
    assert_frame_equal(alone, second[alone.columns], check_exact=True)
    with pytest.raises(UserError, match="at least one"):
        compare_pairs(trials, [])


def test_crossed_intervals_are_the_slow_double_loop(random_study):
    """The same draws of directions and prompts, every trial weighted by the product of its two counts."""
    trials = random_study(24, 12)
    table = compare(trials, "steered", "plain", clusters="direction x prompt", seed=4, draws=60).set_index("statistic")
    both = (
        trials.pivot(index=["direction", "prompt_index"], columns="condition", values="state").eq("scored").all(axis=1)
    )
    arms = trials.set_index(["direction", "prompt_index"]).loc[both[both].index]
    names = [sorted(set(arms.index.get_level_values(level))) for level in (0, 1)]
    drawn = [
        np.random.default_rng(key).multinomial(n, np.full(n, 1 / n), size=60) for key, n in ((4, 24), ([4, 1], 12))
    ]
    values = {name: [] for name in ("steered", "plain")}
    for draw in range(60):
        counts = [dict(zip(names[k], drawn[k][draw], strict=True)) for k in (0, 1)]
        for name in values:
            rows = arms[arms["condition"] == name]
            weights = [counts[0][d] * counts[1][p] for d, p in rows.index]
            values[name].append(math.fsum(rows["first_score"] * weights) / sum(weights))
    expected = percentile_interval(np.subtract(values["steered"], values["plain"]), clusters=12)
    row = table.loc["mean_first_score"]
    assert row["difference_method"] == CROSSED_BOOTSTRAP
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(expected, abs=1e-10)


def test_crossed_values_and_p_are_those_of_directions(random_study):
    """Exchanging whole directions stays exact whatever prompts have in common."""
    trials = random_study(24, 12)
    one, both = (
        compare(trials, "steered", "plain", clusters=c, draws=200) for c in ("direction", "direction x prompt")
    )
    same = ["statistic", "value_treatment", "value_control", "difference", "ratio", "n_pairs", "n_directions"]
    assert_frame_equal(one[same], both[same], rtol=1e-12)
    exchanged = one["statistic"].isin(["multi_attempt_rate", "esr_rate", "mean_first_score"])
    assert_frame_equal(one.loc[exchanged, ["p"]], both.loc[exchanged, ["p"]], check_exact=True)
    wider = (both["difference_high"] - both["difference_low"]) / (one["difference_high"] - one["difference_low"])
    assert (wider > 1).all()
    with pytest.raises(UserError, match=r"'direction' or 'direction x prompt'. Got 'prompt'"):
        compare(trials, "steered", "plain", clusters="prompt")


OVER_RESTARTS = ("improvement_rate", "mean_improvement")


@pytest.mark.parametrize(("restarts", "tested"), [(9, False), (10, True)])
def test_what_is_counted_over_too_few_restarts_is_not_tested_and_says_so(make_trials, restarts, tested):
    treated, plain = np.ones((12, 4)), np.zeros((12, 4))
    plain.flat[:restarts] = 1
    table = compare(arms_of(make_trials, treated, plain), "a", "b", draws=200).set_index("statistic")
    for key in OVER_RESTARTS:
        row = table.loc[key]
        said = f"cannot be tested: fewer than {MIN_EVENTS} multi-attempt responses in control"
        assert (said in row["note"]) != tested
        assert math.isnan(row["p"]) != tested
        assert not math.isnan(row["difference_low"])  # the interval is as honest as ever
    assert table.loc[["esr_rate", "multi_attempt_rate", "mean_first_score"], "p"].notna().all()


def test_p_over_restarts_is_where_the_interval_meets_0_and_no_exchange(random_study):
    trials = random_study(60)
    table = compare(trials, "steered", "plain", draws=500).set_index("statistic")
    assert (table["n_control"][list(OVER_RESTARTS)] >= MIN_EVENTS).all()
    for key in OVER_RESTARTS:
        p = table.loc[key, "p"]
        assert 0.002 < p < 0.99
        assert not table.loc[key, "p_exact"]
        for level, inside in ((1 - p - 0.01, False), (1 - p + 0.001, True)):
            row = compare(trials, "steered", "plain", draws=500, level=level).set_index("statistic").loc[key]
            assert (row["difference_low"] <= 0 <= row["difference_high"]) == inside


@pytest.mark.slow
def test_p_over_restarts_does_not_react_to_how_many_there_are(make_trials):
    """The same improvement rate at 60 and 10 % multi-attempt: exchanging whole directions rejects 17 % of the time."""
    generator = np.random.default_rng(5)
    found, exchanged = [], []
    for seed in range(150):
        rows = [
            {
                "condition": c, "direction": f"{d:02}", "prompt_index": p, "seed": 0,
                "scores": [50] if generator.random() > rate else [50, 90 if generator.random() < 0.5 else 10],
            }
            for c, rate in (("a", 0.6), ("b", 0.1))
            for d in range(40)
            for p in range(5)
        ]  # fmt: skip
        trials = make_trials(rows)
        table = compare(trials, "a", "b", draws=300, seed=seed).set_index("statistic")
        found.append(table.loc["improvement_rate", "p"] < 0.05)
        multi = trials[trials["multi_attempt"]].groupby(["direction", "condition"])["improved"].agg(["sum", "size"])
        columns = multi.unstack("condition", fill_value=0).swaplevel(axis=1)
        columns = columns[[("a", "sum"), ("a", "size"), ("b", "sum"), ("b", "size")]].to_numpy(float)
        exchanged.append(exchange_p(columns, seed=seed, draws=300)[0] < 0.05)
    assert np.mean(found) <= 0.05 < 0.1 < np.mean(exchanged)


def without_pairs(trials):
    """The same trials under other seeds in the control: nothing is shared but directions and prompts."""
    return trials.assign(seed=np.where(trials["condition"] == "plain", -1 - trials["seed"], trials["seed"]))


def test_conditions_without_shared_trials_are_compared_by_their_directions(random_study):
    trials = without_pairs(random_study(24))
    table = compare(trials, "steered", "plain", seed=2, draws=500).set_index("statistic")
    assert not table["paired"].any()
    row = table.loc["mean_first_score"]
    scored = trials[trials["state"] == "scored"]
    sums = scored.pivot_table(index="direction", columns="condition", values="first_score", aggfunc=["sum", "count"])
    assert row["n_treatment"] == (scored["condition"] == "steered").sum()
    assert row[["n_pairs", "n_unmatched_treatment", "n_unmatched_control"]].tolist() == [0, 96, 96]
    assert row["n_unscored"] == 192 - len(scored)
    generator = np.random.default_rng(2)
    drawn = []
    for _ in range(500):
        counts = generator.multinomial(24, np.full(24, 1 / 24))
        totals = counts @ sums.to_numpy()  # sum plain, sum steered, count plain, count steered
        drawn.append(totals[1] / totals[3] - totals[0] / totals[2])
    assert row["difference_method"] == BOOTSTRAP
    expected = percentile_interval(np.array(drawn), clusters=24)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(expected, abs=1e-10)
    assert not row["p_exact"]
    paired = compare(random_study(24), "steered", "plain", seed=2, draws=500)
    assert paired["paired"].all()


def test_pairs_can_be_ignored_and_directions_need_not_be_shared(random_study):
    trials = random_study(24)
    columns = ["difference", "difference_low", "difference_high", "p"]
    ignored = compare(trials, "steered", "plain", paired=False, draws=200)
    assert_frame_equal(ignored[columns], compare(without_pairs(trials), "steered", "plain", draws=200)[columns])
    other = trials.assign(direction=np.where(trials["condition"] == "plain", "x", "") + trials["direction"].astype(str))
    table = compare(other, "steered", "plain", draws=2000).set_index("statistic")
    assert set(table["n_directions"]) == {48}
    row = table.loc["multi_attempt_rate"]
    assert row["difference_low"] < 0.4 < row["difference_high"]  # simulated rates .5 and .1
    assert row["p"] < 0.01


def test_p_without_pairs_is_where_the_interval_meets_0(random_study):
    trials = without_pairs(random_study(12))
    for row in compare(trials, "steered", "plain", draws=500).to_dict("records"):
        if 0.002 < row["p"] < 0.99:
            for level, inside in ((1 - row["p"] - 0.01, False), (1 - row["p"] + 0.001, True)):
                table = compare(trials, "steered", "plain", draws=500, level=level).set_index("statistic")
                wider = table.loc[row["statistic"]]
                assert (wider["difference_low"] <= 0 <= wider["difference_high"]) == inside


def test_interval_p_of_a_normal_estimate_is_the_z_tests():
    for z in (0.5, 1.96, 3.0):
        found = interval_p(lambda level, z=z: Interval(z - stats.norm.ppf((1 + level) / 2), math.inf, ""))
        assert found == pytest.approx(2 * stats.norm.sf(z), abs=1e-8)
    assert interval_p(lambda level: Interval(1, 2, ""), draws=99) == 0.01
    assert interval_p(lambda level: Interval(-1, 1, "")) == 1
    assert interval_p(lambda level: Interval(math.nan, math.nan, "")) == 1


def test_no_event_in_either_arm_without_pairs_has_p_1_and_a_width(make_trials):
    none = np.zeros((12, 3))
    row = compare(arms_of(make_trials, none, none), "a", "b", paired=False).set_index("statistic").loc["esr_rate"]
    bound = clopper_pearson(0, 12)[1]
    assert (row["difference_low"], row["difference_high"], row["p"]) == (-bound, bound, 1)


@pytest.mark.parametrize("options", [{}, {"clusters": "direction x prompt"}, {"paired": False}])
def test_order_of_rows_does_not_matter(random_study, options):
    trials = random_study(24, 12)
    once = compare(trials, "steered", "plain", seed=4, draws=200, **options)
    again = compare(trials.sample(frac=1, random_state=1), "steered", "plain", seed=4, draws=200, **options)
    assert_frame_equal(once, again, check_exact=True)


def test_every_statistic_has_a_row(random_study):
    table = compare(random_study(5), "steered", "plain", draws=50)
    assert table["statistic"].tolist() == [statistic.key for statistic in STATISTICS]


def test_bad_comparisons_are_refused(random_study):
    trials = random_study(3)
    with pytest.raises(UserError, match=r"has trials.*none of 'absent'"):
        compare(trials, "absent", "plain")
    with pytest.raises(UserError, match=r"needs the control and another condition.*'absent'"):
        compare_all(trials, "absent")
    moved = trials.assign(seed=np.where(trials["condition"] == "plain", -1 - trials.index, trials["seed"]))
    with pytest.raises(UserError, match=r"share trials.*none of 'steered' and 'plain'.*without pairs"):
        compare(moved, "steered", "plain", paired=True)
    with pytest.raises(UserError, match=r"each \(direction, prompt_index, seed\) once"):
        compare(trials.assign(seed=0, prompt_index=0), "steered", "plain")


def test_pairs_of_a_sampled_judge_estimate_the_difference_of_all_pairs():
    """The first judge overlooks restarts, one more often than the other: the sample must find them in its share."""
    generator = np.random.default_rng(8)
    rows = []
    for direction, prompt in itertools.product(range(60), range(10)):
        for condition, rate, seen in (("treated", 0.3, 0.9), ("control", 0.2, 0.3)):
            multi = bool(generator.random() < rate)
            rows.append(
                {
                    "trial": f"{condition}-{direction}-{prompt}", "condition": condition, "direction": f"d{direction}",
                    "prompt_index": prompt, "seed": 0,
                    "state": "scored", "reason": "", "multi_attempt": multi, "improved": multi, "first_score": 50.0,
                    "improvement": 10.0 if multi else math.nan, "degraded": False, "n_attempts": 1 + multi,
                    "promoted": False, "first_judge": multi and bool(generator.random() < seen),
                }
            )  # fmt: skip
    trials = pd.DataFrame(rows)

    def rates(frame):
        row = compare(frame, "treated", "control", paired=True, draws=10).set_index("statistic")
        return row.loc["multi_attempt_rate", ["value_treatment", "value_control"]].to_numpy(float)

    places = dict(enumerate(zip(trials["direction"], trials["prompt_index"], strict=True)))
    found = []
    for seed in range(30):
        drawn = stratified_sample(dict(enumerate(trials["first_judge"])), rest=200, seed=seed, places=places)
        found.append(rates(trials.loc[list(drawn)].assign(weight=list(drawn.values()))))
    error = np.std(found, axis=0) / 30**0.5
    assert (np.abs(np.mean(found, axis=0) - rates(trials)) < 4 * error + 0.005).all()
