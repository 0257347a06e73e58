"""Time courses around the restart, against loops over tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from activation_readings import GROUPS, LATENTS, activations, random_readings, reading

from esr.analysis.activation_courses import MIN_ACTIVE, normalised_course, token_course
from esr.analysis.activations import KINDS, Reading
from esr.analysis.uncertainty import bootstrap_sums, percentile_interval
from esr.errors import UserError

DRAWS = 100


def series(one: Reading, group: str) -> np.ndarray:
    columns = [LATENTS.index(latent) for latent in GROUPS[group]]
    return one.values[: one.end, columns].astype(float).mean(axis=1)


def test_token_course_is_the_slow_definition() -> None:
    readings = [replace(r, end=r.end - 1) for r in random_readings(controls=2)]
    course = token_course(activations(readings), window=11, bin_tokens=3, draws=DRAWS)
    assert sorted(set(course["start"])) == [-9, -6, -3, 0, 3, 6]  # whole bins, an edge at the restart
    for _, row in course.iterrows():
        means = []
        for one in (r for r in readings if r.kind == row["kind"]):
            values = series(one, row["group"])
            offsets = range(int(row["start"]), int(row["stop"]))
            inside = [values[one.restart + o] for o in offsets if 0 <= one.restart + o < one.end]
            means += [np.mean(inside)] if inside else []
        assert row["n"] == len(means)
        assert row["mean"] == pytest.approx(np.mean(means), rel=1e-6)


def test_normalised_course_keeps_the_mean_of_each_side() -> None:
    """Every token has the same share of its side, whatever the number of bins: 50 bins of a side of 4 tokens."""
    readings = random_readings(kinds=("episode",))
    course = normalised_course(activations(readings), draws=DRAWS)
    assert (course["start"].min(), course["stop"].max(), course["start"].nunique()) == (0, 2, 50)
    assert (course.loc[course["kind"].eq("episode"), "n"] == len(readings)).all()
    for group in GROUPS:
        rows = course[course["group"].eq(group) & course["kind"].eq("episode")]
        before, after = rows[rows["start"] < 1], rows[rows["start"] >= 1]
        assert len(before) == len(after) == 25
        parts = [np.split(series(r, group), [r.restart]) for r in readings]
        assert before["mean"].mean() == pytest.approx(np.mean([p[0].mean() for p in parts]), rel=1e-6)
        assert after["mean"].mean() == pytest.approx(np.mean([p[1].mean() for p in parts]), rel=1e-6)


def test_normalised_course_is_the_integral_of_the_steps() -> None:
    """Oracle: the step function of each side, sampled finely."""
    readings = random_readings(directions=3, kinds=("episode",))
    course = normalised_course(activations(readings), bins=6, draws=DRAWS)
    grid = (np.arange(30_000) + 0.5) / 30_000
    expected = np.zeros(6)
    for one in readings:
        for k, side in enumerate(np.split(series(one, "detectors"), [one.restart])):
            fine = side[np.floor(grid * len(side)).astype(int)]
            expected[3 * k : 3 * k + 3] += fine.reshape(3, -1).mean(axis=1) / len(readings)
    rows = course[course["group"].eq("detectors") & course["kind"].eq("episode")]
    np.testing.assert_allclose(rows["mean"], expected, rtol=1e-3)


def test_bands_are_the_cluster_bootstrap() -> None:
    readings = random_readings()
    course = token_course(activations(readings), window=4, bin_tokens=4, draws=DRAWS, seed=5)
    row = course[(course["group"] == "detectors") & (course["kind"] == "no-recovery") & (course["start"] == 0)].iloc[0]
    directions = sorted({r.direction for r in readings})
    drawn = []
    for counts in bootstrap_sums(np.eye(len(directions)), seed=5, draws=DRAWS):
        copies = [
            series(r, "detectors")[r.restart : r.restart + 4].mean()
            for direction, count in zip(directions, counts, strict=True)
            for r in readings
            if (r.direction, r.kind) == (direction, "no-recovery")
            for _ in range(int(count))
        ]
        drawn.append(np.mean(copies))
    assert (row["low"], row["high"]) == pytest.approx(percentile_interval(np.array(drawn), len(directions)))


def test_the_default_window_keeps_half_of_the_episodes() -> None:
    readings = random_readings()
    course = token_course(activations(readings), draws=DRAWS)
    edge = course[course["kind"].eq("episode") & course["group"].eq("detectors")]
    assert edge["start"].min() == -edge["stop"].max()
    assert (edge["n"] >= math.ceil(len(readings) / 3 / 2)).all()
    assert edge["n"].min() < len(readings) / 3
    assert len(edge) <= 50
    cuts = {"restart": 300, "correction_end": 310}
    long = [reading(np.ones((600, 3)), episode=f"e{d}", direction=f"l{d}", **cuts) for d in range(3)]
    wide = token_course(activations(long), draws=DRAWS)
    assert set(wide["stop"] - wide["start"]) == {12}
    assert wide["start"].min() == -300


def test_no_band_where_few_directions_are_active() -> None:
    readings = random_readings(directions=MIN_ACTIVE, per=1)
    course = token_course(activations(readings), window=4, draws=DRAWS)
    assert course["low"].notna().any()
    fewer = token_course(activations([r for r in readings if r.direction != "latent:0"]), window=4, draws=DRAWS)
    assert fewer["low"].isna().all()
    assert fewer["note"].str.contains("no band: active in 5 of 5 directions").any()


def test_a_kind_that_was_not_read_is_nan_with_a_note() -> None:
    for course in (token_course, normalised_course):
        made = course(activations(random_readings(kinds=("episode",))), draws=DRAWS)
        missing = made[made["kind"].ne("episode")]
        assert set(made["kind"]) == set(KINDS)
        assert (missing["n"] == 0).all()
        assert missing["mean"].isna().all()
        assert missing["note"].str.endswith("responses reach this bin").all()


def test_a_restart_at_either_end_leaves_its_side_out() -> None:
    readings = random_readings(kinds=("episode",))
    readings[0] = replace(readings[0], restart=0, correction_end=0)
    readings[1] = replace(readings[1], restart=readings[1].end, correction_end=readings[1].end)
    course = normalised_course(activations(readings), draws=DRAWS)
    episodes = course[course["kind"].eq("episode")]
    assert (episodes["n"] == len(readings) - 1).all()
    assert not episodes["mean"].isna().any()


def test_the_order_of_the_readings_does_not_matter() -> None:
    readings = random_readings()
    shuffled = [readings[i] for i in np.random.default_rng(0).permutation(len(readings))]
    for course in (token_course, normalised_course):
        one, other = (course(activations(given), draws=DRAWS) for given in (readings, shuffled))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_impossible_bins_are_refused() -> None:
    some = activations(random_readings(directions=2))
    for given in ({"window": 0}, {"window": 3, "bin_tokens": 4}, {"window": 3, "bin_tokens": 0}):
        with pytest.raises(UserError, match="whole bins"):
            token_course(some, **given)
    for bins in (0, 7, -2):
        with pytest.raises(UserError, match="even number of bins"):
            normalised_course(some, bins=bins)
