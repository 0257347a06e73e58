"""Means of regions and what differs between them, against loops and textbook definitions."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from activation_readings import GROUPS, LATENTS, activations, random_readings, reading
from scipy.stats import norm, rankdata, wilcoxon

from esr.analysis.activation_comparisons import KEY_CONTROL, WITHIN, compare_activations, key_control_notes
from esr.analysis.activation_effects import cliffs_delta, cohen_d, signed_rank
from esr.analysis.activation_regions import NEVER_ACTIVE, region_table
from esr.analysis.activations import KINDS, SPANS, Activations, Reading
from esr.analysis.paired import MOVER, holm
from esr.analysis.uncertainty import (
    BOOTSTRAP,
    DIRECTIONS_AS_TRIALS,
    UNDEFINED,
    bootstrap_sums,
    clopper_pearson,
    percentile_interval,
)
from esr.errors import UserError

DRAWS = 200


def region_mean(one: Reading, span: str, members: tuple[int, ...]) -> float:
    """The slow definition: token by token, latent by latent."""
    start, stop = {
        "off-topic": (0, one.restart),
        "correction": (one.restart, one.correction_end),
        "on-topic": (one.correction_end, one.end),
        "response": (0, one.end),
    }[span]
    columns = [LATENTS.index(latent) for latent in members]
    values = [float(one.values[t, c]) for t in range(start, stop) for c in columns]
    return sum(values) / len(values) if values else math.nan


def members(unit: str, name: str) -> tuple[int, ...]:
    return (int(name),) if unit == "latent" else GROUPS[name]


def cell(table: pd.DataFrame, **wanted: str) -> pd.Series:
    found = table[np.logical_and.reduce([table[key].eq(value) for key, value in wanted.items()])]
    assert len(found) == 1
    return found.iloc[0]


# readings


def test_spans_share_out_the_response() -> None:
    one = reading(np.zeros((9, 3)), restart=3, correction_end=5, end=8)
    spans = one.spans()
    assert tuple(spans) == SPANS
    tokens = [t for name in SPANS[:3] for t in range(9)[spans[name]]]
    assert tokens == list(range(9)[spans["response"]]) == list(range(8))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"kind": "steered"}, "one of episode, no-recovery, unsteered"),
        ({"episode": "another"}, "matched to itself"),
        ({"values": np.zeros(9, np.float32)}, r"\[tokens, latents\]"),
        ({"restart": 6}, "0 <= restart <= correction_end"),
        ({"end": 10}, "0 <= restart <= correction_end"),
        ({"values": np.full((9, 3), np.nan, np.float32)}, "finite and at least 0"),
        ({"values": np.full((9, 3), -1, np.float32)}, "finite and at least 0"),
    ],
)
def test_a_bad_reading_is_refused(change: dict[str, object], rule: str) -> None:
    good = reading(np.zeros((9, 3)), restart=3, correction_end=5)
    with pytest.raises(UserError, match=rule):
        replace(good, **change)


def test_readings_that_do_not_fit_together_are_refused() -> None:
    one = reading(np.ones((4, 3)))
    lost = reading(np.ones((4, 3)), kind="unsteered", episode="gone")
    cases = {
        "at least one reading": ([], LATENTS, GROUPS),
        "read once per episode": ([one, one], LATENTS, GROUPS),
        "control's episode": ([one, lost], LATENTS, GROUPS),
        "each once": ([one], (5, 5, 7), {}),
        "one column per latent": ([one], (5, 7), {}),
        "some of the latents that were read": ([one], LATENTS, {"g": (5, 6)}),
    }
    for rule, given in cases.items():
        with pytest.raises(UserError, match=rule):
            Activations(*given)
    with pytest.raises(UserError, match="some of the latents"):
        Activations([one], LATENTS, {"empty": ()})


# the table of regions


def test_region_table_is_the_slow_definition() -> None:
    readings = random_readings(directions=12, controls=2)
    readings[0] = replace(readings[0], restart=0)  # an empty region
    table = region_table(activations(readings), draws=DRAWS)
    assert len(table) == 5 * len(SPANS) * len(KINDS)
    for _, row in table.iterrows():
        chosen = [r for r in readings if r.kind == row["kind"]]
        means = [region_mean(r, row["region"], members(row["unit"], row["name"])) for r in chosen]
        kept = [mean for mean in means if not math.isnan(mean)]
        assert row["mean"] == pytest.approx(np.mean(kept), rel=1e-6)
        assert (row["n"], row["n_empty"], row["n_directions"]) == (len(kept), len(means) - len(kept), 12)
        unsteered = [r for r in readings if r.kind == "unsteered"]
        whole = [region_mean(r, "response", members(row["unit"], row["name"])) for r in unsteered]
        assert row["baseline"] == pytest.approx(np.mean(whole), rel=1e-6)
        assert row["n_baseline"] == len(unsteered)
        if (row["kind"], row["region"]) == ("unsteered", "response"):
            assert row["note"] == "the baseline itself"
        else:
            assert row["ratio"] == pytest.approx(np.mean(kept) / np.mean(whole), rel=1e-6)
            assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["low"] <= row["mean"] <= row["high"]
    first = cell(table, unit="latent", name="5", region="off-topic", kind="episode")
    assert first["n_empty"] == 1
    assert first["n_tokens"] == sum(r.restart for r in readings if r.kind == "episode")


def test_the_intervals_are_the_cluster_bootstrap() -> None:
    """Oracle: the drawn directions' readings, written out and averaged."""
    readings = random_readings()
    table = region_table(activations(readings), draws=DRAWS, seed=3)
    row = cell(table, unit="group", name="detectors", region="on-topic", kind="episode")
    directions = sorted({r.direction for r in readings})
    drawn = []
    for counts in bootstrap_sums(np.eye(len(directions)), seed=3, draws=DRAWS):
        copies = [
            region_mean(r, "on-topic", GROUPS["detectors"])
            for direction, count in zip(directions, counts, strict=True)
            for r in readings
            if r.direction == direction and r.kind == "episode"
            for _ in range(int(count))
        ]
        drawn.append(np.mean(copies))
    assert (row["low"], row["high"]) == pytest.approx(percentile_interval(np.array(drawn), len(directions)))
    assert row["method"] == BOOTSTRAP


def test_silence_has_an_interval_and_never_active_has_none() -> None:
    """A latent that is silent in 14 unsteered responses may yet fire in the next; bounded by what others reached."""
    readings = []
    for d in range(14):
        loud, quiet = np.tile([1.0, 0, 0], (6, 1)), np.zeros((6, 3))
        cuts = {"direction": f"l{d}", "episode": f"e{d}", "restart": 2, "correction_end": 4}
        readings += [reading(loud, **cuts), reading(quiet, kind="unsteered", **cuts)]
    table = region_table(activations(readings), draws=DRAWS)
    silent = cell(table, unit="latent", name="5", region="off-topic", kind="unsteered")
    assert (silent["mean"], silent["low"], silent["method"]) == (0, 0, DIRECTIONS_AS_TRIALS)
    assert 0.1 < silent["high"] < 0.5
    assert cell(table, unit="latent", name="5", region="off-topic", kind="episode")["note"] == "no ratio to a mean of 0"
    never = cell(table, unit="latent", name="7", region="off-topic", kind="episode")
    assert (never["mean"], never["method"], never["note"]) == (0, UNDEFINED, NEVER_ACTIVE)
    assert math.isnan(never["low"])
    none = cell(table, unit="latent", name="5", region="off-topic", kind="no-recovery")
    assert (none["n"], none["note"]) == (0, "no no-recovery responses with tokens in this region")
    assert math.isnan(none["mean"])


def test_nothing_depends_on_the_order_of_the_readings() -> None:
    readings = random_readings(controls=2)
    shuffled = [readings[i] for i in np.random.default_rng(1).permutation(len(readings))]
    for table in (region_table, compare_activations):
        one, other = (table(activations(given), draws=DRAWS) for given in (readings, shuffled))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


# effect sizes and tests


def test_cohen_d_is_the_textbook_definition() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(1, 2, 7), generator.normal(0, 1, 12)

    def spread(x: np.ndarray) -> float:
        return sum((v - sum(x) / len(x)) ** 2 for v in x)

    pooled = math.sqrt((spread(a) + spread(b)) / (7 + 12 - 2))
    assert cohen_d(a, b) == pytest.approx((sum(a) / 7 - sum(b) / 12) / pooled, rel=1e-12)
    assert cohen_d(b, a) == pytest.approx(-cohen_d(a, b))
    assert math.isnan(cohen_d(np.ones(3), np.zeros(3)))
    assert math.isnan(cohen_d(np.ones(1), np.zeros(3)))


def test_cliffs_delta_is_the_double_loop() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        a, b = (generator.integers(0, 4, generator.integers(1, 9)).astype(float) for _ in range(2))  # many ties
        slow = sum(int(x > y) - int(x < y) for x in a for y in b) / (len(a) * len(b))
        assert cliffs_delta(a, b) == pytest.approx(slow, abs=1e-12)
    assert math.isnan(cliffs_delta(np.array([]), np.ones(2)))


def test_signed_rank_is_scipys() -> None:
    """And, by enumeration of all signs, the definition."""
    d = np.array([0.3, -0.1, 0.7, 1.1, -0.4, 0.9])
    statistic, p = signed_rank(d)
    assert (statistic, p) == pytest.approx(tuple(wilcoxon(d)))
    ranks = rankdata(np.abs(d))
    total = [sum(ranks[np.array(signs)]) for signs in itertools.product([True, False], repeat=6)]
    observed = sum(ranks[d > 0])
    tail = min(np.mean(np.array(total) >= observed), np.mean(np.array(total) <= observed))
    assert p == pytest.approx(2 * tail)
    tied = np.array([1.0, 1.0, -1.0, 2.0, 0.0, 0.0, 3.0])
    assert signed_rank(tied) == pytest.approx(tuple(wilcoxon(tied, method="approx")))
    assert all(math.isnan(value) for value in signed_rank(np.zeros(3)))


# comparisons


def test_pairs_are_matched_by_episode_and_region() -> None:
    """Two controls per episode are averaged for the difference and single in the effect sizes."""
    readings = random_readings(directions=11, controls=2)
    short = next(i for i, r in enumerate(readings) if r.kind == "no-recovery")
    gone = readings[short].episode
    cut = {"restart": 0, "correction_end": 0, "end": 0}
    readings = [replace(r, **cut) if r.kind == "no-recovery" and r.episode == gone else r for r in readings]
    table = compare_activations(activations(readings), draws=DRAWS)
    row = cell(table, comparison=KEY_CONTROL, region="correction", unit="group", name="detectors")
    group = GROUPS["detectors"]
    pairs, singles = [], []
    for r in readings:
        if r.kind == "episode" and r.episode != gone:
            own = [c for c in readings if c.kind == "no-recovery" and c.episode == r.trial]
            controls = [region_mean(c, "correction", group) for c in own]
            pairs.append((region_mean(r, "correction", group), float(np.mean(controls))))
            singles += controls
    first, second = np.array(pairs).T
    assert (row["n_pairs"], row["n_left_out"], row["n_directions"]) == (21, 1, 11)
    assert (row["n_first"], row["n_second"]) == (21, 42)
    assert row["difference"] == pytest.approx(np.mean(first - second), rel=1e-6)
    assert row["ratio"] == pytest.approx(np.mean(first) / np.mean(second), rel=1e-6)
    assert row["cohen_d"] == pytest.approx(cohen_d(first, np.array(singles)), rel=1e-6)
    assert row["cliffs_delta"] == pytest.approx(cliffs_delta(first, np.array(singles)), rel=1e-6)
    assert row["p_wilcoxon"] == pytest.approx(signed_rank(first - second)[1], rel=1e-6)
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_within_episodes_compares_before_with_after() -> None:
    readings = random_readings(kinds=("episode",))
    readings[0] = replace(readings[0], restart=0)
    table = compare_activations(activations(readings), draws=DRAWS)
    row = cell(table, comparison=WITHIN, unit="latent", name="5")
    pairs = [(region_mean(r, "off-topic", (5,)), region_mean(r, "on-topic", (5,))) for r in readings[1:]]
    first, second = np.array(pairs).T
    assert row["difference"] == pytest.approx(np.mean(first - second), rel=1e-6)
    assert (row["n_pairs"], row["n_left_out"]) == (len(readings) - 1, 1)
    assert row["p_flip_holm"] < 0.05
    assert cell(table, comparison=KEY_CONTROL, region="off-topic", unit="latent", name="5")["note"] == "no pairs"


def test_the_sign_flip_keeps_directions_whole() -> None:
    """Oracle: every pattern of signs over directions, on the sums of the paired differences."""
    readings = random_readings(directions=8, per=3, kinds=("episode", "no-recovery"))
    table = compare_activations(activations(readings), draws=DRAWS)
    row = cell(table, comparison=KEY_CONTROL, region="on-topic", unit="latent", name="7")
    sums = dict.fromkeys(sorted({r.direction for r in readings}), 0.0)
    by_key = {(r.kind, r.episode): r for r in readings}
    for r in readings:
        if r.kind == "episode":
            control = by_key["no-recovery", r.trial]
            sums[r.direction] += region_mean(r, "on-topic", (7,)) - region_mean(control, "on-topic", (7,))
    values = np.array(list(sums.values()))
    flipped = [abs(np.array(signs) @ values) for signs in itertools.product([1, -1], repeat=8)]
    slow = np.mean(np.array(flipped) >= abs(values.sum()) - 1e-9)
    assert row["p_flip"] == pytest.approx(slow)
    assert row["p_flip_exact"]


def test_holm_runs_over_latents_and_groups_apart() -> None:
    table = compare_activations(activations(random_readings()), draws=DRAWS)
    for (_, _, _), part in table.groupby(["comparison", "region", "unit"]):
        for test in ("p_flip", "p_wilcoxon"):
            assert list(part[f"{test}_holm"]) == pytest.approx(holm(part[test].tolist()))


@pytest.mark.parametrize("controls", [1, 2])
def test_intervals_of_effect_sizes_are_the_cluster_bootstrap(controls: int) -> None:
    """Oracle: effect sizes of the drawn directions' responses, written out."""
    readings = random_readings(directions=13, controls=controls)
    table = compare_activations(activations(readings), draws=60, seed=2)
    row = cell(table, comparison=KEY_CONTROL, region="response", unit="latent", name="7")
    directions = sorted({r.direction for r in readings})
    ds, deltas = [], []
    for counts in bootstrap_sums(np.eye(len(directions)), seed=2, draws=60):
        arms = [
            np.array(
                [
                    region_mean(r, "response", (7,))
                    for direction, count in zip(directions, counts, strict=True)
                    for r in readings
                    if r.direction == direction and r.kind == kind
                    for _ in range(int(count))
                ]
            )
            for kind in ("episode", "no-recovery")
        ]
        ds.append(cohen_d(*arms))
        deltas.append(cliffs_delta(*arms))
    assert (row["cohen_d_low"], row["cohen_d_high"]) == pytest.approx(percentile_interval(np.array(ds), 13), rel=1e-5)
    limits = row["cliffs_delta_low"], row["cliffs_delta_high"]
    assert limits == pytest.approx(percentile_interval(np.array(deltas), 13), rel=1e-5)


def test_complete_separation_has_an_interval_with_width() -> None:
    readings = []
    for d in range(12):
        cuts = {"direction": f"l{d}", "episode": f"e{d}", "restart": 2, "correction_end": 4}
        readings.append(reading(np.full((6, 3), 2 + d / 10), **cuts))
        readings.append(reading(np.full((6, 3), 1 + d / 100), kind="no-recovery", **cuts))
    readings.append(reading(np.ones((6, 3)), kind="no-recovery", trial="another", **cuts))  # not all have as many
    table = compare_activations(activations(readings), draws=DRAWS)
    row = cell(table, comparison=KEY_CONTROL, region="off-topic", unit="latent", name="5")
    assert (row["cliffs_delta"], row["cliffs_delta_high"]) == (1, 1)
    assert row["cliffs_delta_method"] == DIRECTIONS_AS_TRIALS
    assert row["cliffs_delta_low"] == pytest.approx(2 * clopper_pearson(1.0, 12)[0] - 1)


def test_few_active_directions_widen_intervals_or_leave_them_out() -> None:
    table = compare_activations(activations(random_readings(directions=6)), draws=DRAWS)
    row = cell(table, comparison=KEY_CONTROL, region="off-topic", unit="latent", name="5")
    assert row["difference_method"] == row["ratio_method"] == MOVER
    assert row["cohen_d_method"] == row["cliffs_delta_method"] == UNDEFINED
    assert math.isnan(row["cohen_d_low"])
    assert not math.isnan(row["cohen_d"])
    assert "fewer than 10 active directions" in row["note"]


def test_a_silent_latent_has_no_tests() -> None:
    readings = [replace(r, values=r.values * np.float32([1, 0, 1])) for r in random_readings()]
    table = compare_activations(activations(readings), draws=DRAWS)
    row = cell(table, comparison=KEY_CONTROL, region="off-topic", unit="latent", name="7")
    assert row["note"] == NEVER_ACTIVE
    assert row[["p_flip", "p_flip_holm", "p_wilcoxon", "cohen_d", "ratio", "difference_low"]].isna().all()
    other = cell(table, comparison=KEY_CONTROL, region="off-topic", unit="latent", name="5")
    assert other["p_flip_holm"] <= min(1, 2 * other["p_flip"])  # the silent one is no member of the family


def test_equal_arms_show_no_difference() -> None:
    readings = random_readings(kinds=("episode",))
    twins = [replace(r, kind="no-recovery", trial=f"twin of {r.trial}") for r in readings]
    table = compare_activations(activations([*readings, *twins]), draws=DRAWS)
    row = cell(table, comparison=KEY_CONTROL, region="off-topic", unit="group", name="detectors")
    assert (row["difference"], row["ratio"], row["cohen_d"], row["cliffs_delta"], row["p_flip"]) == (0, 1, 0, 0, 1)
    assert "no pair differs" in row["note"]


def test_the_sign_flip_is_honest_under_no_effect() -> None:
    """Pairs of a direction resemble one another: Wilcoxon rejects far too often, the clustered flip does not."""
    rejected = []
    for seed in range(30):
        generator = np.random.default_rng(seed)
        readings = []
        for d in range(10):
            shift = generator.normal(0, 1)
            for i in range(4):
                cuts = {"direction": f"l{d}", "episode": f"{d}/{i}", "restart": 1, "correction_end": 1}
                low, high = 5 + generator.normal(0, 0.2, 2)
                readings.append(reading(np.full((2, 1), high + shift / 2), **cuts))
                readings.append(reading(np.full((2, 1), low - shift / 2), kind="no-recovery", **cuts))
        table = compare_activations(Activations(readings, (5,), {}), draws=20)
        row = cell(table, comparison=KEY_CONTROL, region="off-topic", unit="latent", name="5")
        rejected.append((row["p_flip"] < 0.05, row["p_wilcoxon"] < 0.05))
    flip, rank = np.mean(rejected, axis=0)
    assert flip <= 0.05 + norm.ppf(0.999) * math.sqrt(0.05 * 0.95 / 30)
    assert rank > 0.2


def test_the_key_control_is_said_in_words() -> None:
    notes = key_control_notes(compare_activations(activations(random_readings(directions=20)), draws=DRAWS))
    assert len(notes) == len(GROUPS)
    assert notes[0].startswith("detectors, tokens before the restart: episodes ")
    assert "steered text that never restarts" in notes[0]
    assert notes[0].endswith("40 pairs of 20 directions: no difference shown.")
    readings = random_readings(directions=20)
    raised = [replace(r, values=r.values + np.float32(r.kind == "episode")) for r in readings]
    higher = key_control_notes(compare_activations(activations(raised), draws=DRAWS))
    assert higher[0].endswith("sign-flip p 0.005, 40 pairs of 20 directions: higher before a restart.")
    lowered = [replace(r, values=r.values + np.float32(r.kind != "episode")) for r in readings]
    assert "lower before a restart" in key_control_notes(compare_activations(activations(lowered), draws=DRAWS))[0]
    alone = random_readings(kinds=("episode", "unsteered"))
    (first, _) = key_control_notes(compare_activations(activations(alone), draws=DRAWS))
    assert first.endswith("no comparison with steered text that never restarts (no pairs).")
