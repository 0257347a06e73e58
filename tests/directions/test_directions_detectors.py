"""Pairs, the statistics of detectors and their ranking, against SciPy and the slow textbook definitions."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

import esr.directions.detectors as detectors
from esr.analysis.separability import auc_interval, weighted_auc
from esr.directions.detectors import placements, rank, separability
from esr.directions.pairs import Pairs, derange, read_pairs, span, together, total_activity
from esr.errors import UserError
from esr.steering.engine import Request
from esr.steering.hf import HFEngine

RNG = np.random.default_rng(11)


def values(pairs: int, shift: float, latents: int = 30) -> np.ndarray:
    """Mostly zero, with many ties; latent 0 is dead, latent 1 constant, latent 2 only ever on in one pair."""
    raw = np.round(RNG.normal(shift, 1, size=(pairs, latents)) * 2) / 2
    made = np.maximum(raw, 0).astype(np.float32)
    made[:, 0], made[:, 1], made[:, 2] = 0, 1, 0
    made[0, 2] = 3
    return made


MATCHED, MISMATCHED = values(37, -0.4), values(41, 0.3)


# ---- derangements


@pytest.mark.parametrize(
    "counts", [(1, 1), (3, 3), (4, 4, 4), (5, 2, 3), (1, 1, 1, 1, 1), (6, 1, 1, 1, 1, 2), (2,) * 20]
)
def test_no_prompt_gets_its_own_response(counts: tuple[int, ...]) -> None:
    prompts = [f"prompt {i}" for i, n in enumerate(counts) for _ in range(n)]
    order = np.random.default_rng(1).permutation(len(prompts))
    prompts = [prompts[i] for i in order]
    for seed in range(20):
        other = derange(prompts, np.random.default_rng(seed))
        assert sorted(other.tolist()) == list(range(len(prompts)))
        assert all(prompts[i] != prompts[j] for i, j in enumerate(other))


def test_equal_prompts_are_one_prompt() -> None:
    prompts = ["How do I bake?", "how  do i BAKE? ", "How do I knit?", "How do I sail?"]
    for seed in range(30):
        other = derange(prompts, np.random.default_rng(seed))
        assert other[0] not in (0, 1)
        assert other[1] not in (0, 1)


def test_derangement_exists_exactly_when_it_can() -> None:
    """Against all permutations of five responses to at most three prompts."""
    for prompts in itertools.product("abc", repeat=5):
        possible = any(all(prompts[i] != prompts[j] for i, j in enumerate(p)) for p in itertools.permutations(range(5)))
        if possible:
            other = derange(prompts, np.random.default_rng(0))
            assert all(prompts[i] != prompts[j] for i, j in enumerate(other))
        else:
            with pytest.raises(
                UserError, match=r"at most half of the responses belong to one prompt.*Use more prompts"
            ):
                derange(prompts, np.random.default_rng(0))


def test_derangements_mix_and_follow_the_seed() -> None:
    prompts = [str(i // 4) for i in range(48)]
    drawn = [derange(prompts, np.random.default_rng(seed)) for seed in range(40)]
    assert (derange(prompts, np.random.default_rng(3)) == drawn[3]).all()
    partners = {int(other[0]) // 4 for other in drawn}
    assert len(partners) >= 8  # of 11
    within = [len({int(other[i]) // 4 for i in range(4)}) for other in drawn]
    assert np.mean(within) > 3  # the four responses of a prompt go to different prompts
    assert derange(["a", "b"], np.random.default_rng(0)).tolist() == [1, 0]
    for few in (["a"], []):
        with pytest.raises(UserError, match="at most half"):
            derange(few, np.random.default_rng(0))


# ---- statistics


def test_auc_is_mann_and_whitneys() -> None:
    table = separability(MATCHED, MISMATCHED)
    for latent in range(MATCHED.shape[1]):
        u = mannwhitneyu(*(v[:, latent].astype(float) for v in (MISMATCHED, MATCHED))).statistic
        assert table["auc"][latent] == pytest.approx(u / (37 * 41), abs=1e-12)
        pairs = itertools.product(MATCHED[:, latent], MISMATCHED[:, latent])
        slow = np.mean([(other > own) + 0.5 * (other == own) for own, other in pairs])
        assert table["auc"][latent] == pytest.approx(slow, abs=1e-12)
    assert table["auc"][0] == table["auc"][1] == 0.5  # dead; constant
    assert table["auc"].between(0.6, 0.9).sum() > 10


def test_cohens_d_rates_and_means() -> None:
    table = separability(MATCHED, MISMATCHED)
    one, two = MATCHED.astype(float), MISMATCHED.astype(float)
    for latent in range(2, MATCHED.shape[1]):
        a, b = one[:, latent], two[:, latent]
        pooled = np.sqrt((36 * a.var(ddof=1) + 40 * b.var(ddof=1)) / (37 + 41 - 2))
        row = table.loc[latent]
        assert row["d"] == pytest.approx((b.mean() - a.mean()) / pooled, abs=1e-12)
        assert row["sd"] == pytest.approx(pooled, abs=1e-12)
        assert (row["rate_matched"], row["rate_mismatched"]) == (np.mean(a > 0), np.mean(b > 0))
        assert (row["mean_matched"], row["mean_mismatched"]) == pytest.approx((a.mean(), b.mean()))
    assert table["d"][[0, 1]].isna().all()
    assert table["latent"].tolist() == list(range(30))


def test_chunks_of_latents_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = separability(MATCHED, MISMATCHED)
    looked_at: list[int] = []
    part = detectors._separability

    def counting(one: np.ndarray, two: np.ndarray) -> pd.DataFrame:
        looked_at.append(one.size + two.size)
        return part(one, two)

    monkeypatch.setattr(detectors, "CHUNK", 78 * 7)
    monkeypatch.setattr(detectors, "_separability", counting)
    pd.testing.assert_frame_equal(separability(MATCHED, MISMATCHED), whole)
    assert max(looked_at) <= 78 * 7
    assert len(looked_at) == 5


def test_placements_average_to_the_auc() -> None:
    placed = placements(MATCHED, MISMATCHED)
    assert placed.shape == MISMATCHED.shape
    assert placed[3, 5] == pytest.approx(
        np.mean((MATCHED[:, 5] < MISMATCHED[3, 5]) + 0.5 * (MATCHED[:, 5] == MISMATCHED[3, 5]))
    )
    np.testing.assert_allclose(placed.mean(0), separability(MATCHED, MISMATCHED)["auc"])


@pytest.mark.parametrize(("one", "two"), [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,))])
def test_separability_needs_pairs_over_the_same_latents(one: tuple[int, ...], two: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="two matched and two mismatched pairs at least, over the same latents"):
        separability(np.ones(one, np.float32), np.ones(two, np.float32))


# ---- ranking


def table(**columns: list[float]) -> pd.DataFrame:
    n = len(columns["auc"])
    filled = {
        "latent": list(range(n)), "d": [0.5] * n, "rate_matched": [0.5] * n, "rate_mismatched": [0.9] * n,
        "mean_matched": [1.0] * n, "mean_mismatched": [2.0] * n,
    }  # fmt: skip
    return pd.DataFrame(filled | columns)


def test_rank_by_auc_and_by_d() -> None:
    found = table(auc=[0.5, 0.9, 0.9, 0.6, 0.4], d=[9, 1, 2, 3, 9])
    assert rank(found, "auc")["latent"].tolist() == [2, 1, 3]  # ties by d; 0.5 and below never
    assert rank(found, "d")["latent"].tolist() == [3, 2, 1]
    assert rank(found, "auc", top=2)["latent"].tolist() == [2, 1]
    assert rank(found, "auc", auc_minimum=0.7, exclude=[2])["latent"].tolist() == [1]
    assert rank(table(auc=[0.8, 0.8]), "auc")["latent"].tolist() == [0, 1]


def test_rank_by_the_strict_rule() -> None:
    found = table(auc=[0.9, 0.95, 0.99, 0.9], rate_matched=[0.0, 0.0, 0.01, 0.0], rate_mismatched=[0.9, 0.8, 1.0, 0.79])
    assert rank(found, "strict")["latent"].tolist() == [0, 1]
    loose = rank(found, "strict", strict_matched=0.01, strict_mismatched=0.79)
    assert loose["latent"].tolist() == [2, 0, 1, 3]


def test_rank_keeps_always_on_latents_out() -> None:
    found = table(auc=[0.95, 0.9, 0.8], mean_matched=[9.0, 1.0, 0.0], mean_mismatched=[10.0, 10.0, 1.0])
    assert rank(found, "auc", matched_share=0.5)["latent"].tolist() == [1, 2]
    assert rank(found, "auc", matched_share=0.0)["latent"].tolist() == [2]


def test_dead_latents_are_never_ranked() -> None:
    found = separability(MATCHED, MISMATCHED)
    assert not {0, 1} & set(rank(found, "auc", 30)["latent"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"by": "size"}, "ranked by auc, strict or d, and one at least is asked for. Got size, top 26"),
        ({"top": 0}, "Got auc, top 0"),
        ({"matched_share": 1.5}, r"matched_share lies in \[0, 1\]. Got 1.5"),
        ({"strict_mismatched": -1.0}, r"strict_mismatched lies in \[0, 1\]"),
    ],
)
def test_rank_refuses(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rank(table(auc=[0.9]), **wrong)


# ---- intervals


def test_weighted_auc_is_the_auc_of_repeated_rows() -> None:
    one, two = MATCHED[:, 5].astype(float), MISMATCHED[:, 5].astype(float)
    weights, others = RNG.integers(0, 4, size=(6, 37)), RNG.integers(0, 4, size=(6, 41))
    weights[5] = 0
    found = weighted_auc(one, two, weights.astype(float), others.astype(float))
    for row in range(5):
        a, b = np.repeat(one, weights[row]), np.repeat(two, others[row])
        assert found[row] == pytest.approx(mannwhitneyu(b, a).statistic / (len(a) * len(b)), abs=1e-12)
    assert np.isnan(found[5])


def simulated(rng: np.random.Generator, prompts: int = 40, each: int = 3, shift: float = 1.5) -> Pairs:
    """Values with an effect of the prompt, of the response and of the pair."""
    names = tuple(f"prompt {i // each}" for i in range(prompts * each))
    of_prompt = rng.normal(size=prompts)[np.arange(prompts * each) // each]
    of_response, other = rng.normal(size=prompts * each), derange(names, rng)
    of_prompts_responses = rng.normal(size=prompts)[np.arange(prompts * each) // each]
    response = of_response + of_prompts_responses
    matched = of_prompt + response + rng.normal(size=prompts * each)
    mismatched = shift + of_prompt + response[other] + rng.normal(size=prompts * each)
    return Pairs(names, other, matched[:, None], mismatched[:, None], None)  # type: ignore[arg-type]


def test_interval_holds_the_auc_and_narrows_with_prompts() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for prompts in (12, 120):
        pairs = simulated(rng, prompts)
        auc = separability(pairs.matched, pairs.mismatched)["auc"][0]
        interval = auc_interval(pairs, 0, seed=1)
        assert interval.low < auc < interval.high
        assert interval == auc_interval(pairs, 0, seed=1)
        widths.append(interval.high - interval.low)
    assert widths[1] < 0.6 * widths[0]


def test_interval_of_a_perfect_detector_has_a_width() -> None:
    pairs = simulated(np.random.default_rng(0), prompts=8)
    perfect = Pairs(pairs.prompts, pairs.other, np.zeros((24, 1)), np.ones((24, 1)), pairs.activity)
    interval = auc_interval(perfect, 0, seed=1)
    assert interval.high == 1.0
    assert interval.method.endswith("directions as trials")
    assert 0.5 < interval.low < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 1.5, 4.0])
def test_interval_covers(shift: float) -> None:
    rng = np.random.default_rng(5)
    big = simulated(rng, 4000, 3, shift)
    truth = separability(big.matched, big.mismatched)["auc"][0]
    covered = []
    for _ in range(300):
        interval = auc_interval(simulated(rng, 40, 3, shift), 0, seed=1, draws=1000)
        covered.append(interval.low <= truth <= interval.high)
    assert np.mean(covered) >= 0.94


# ---- reading


def texts() -> tuple[list[str], list[Request]]:
    rng = np.random.default_rng(2)
    prompts = [f"prompt {i // 2}" for i in range(8)]
    heads = {name: tuple(rng.integers(8, 100, size=4).tolist()) for name in set(prompts)}
    return prompts, [Request(p, heads[p], prefill_ids=tuple(rng.integers(8, 100, size=9).tolist())) for p in prompts]


@pytest.mark.parametrize("over", ["response", "all"])
@pytest.mark.parametrize("pool", ["max", "mean"])
def test_pairs_are_read_as_engine_read_does(tiny_subject: Any, over: Any, pool: Any) -> None:
    engine, (prompts, requests) = HFEngine(tiny_subject()), texts()
    pairs = read_pairs(engine, prompts, requests, np.random.default_rng(0), pool, over)
    everything = list(range(96))
    for i, j in enumerate(pairs.other):
        assert prompts[i] != prompts[j]
        for kind, response in ((pairs.matched, i), (pairs.mismatched, j)):
            ids = requests[i].prompt_ids + requests[response].prefill_ids
            read = engine.read(ids, everything)[4 if over == "response" else 0 :]
            np.testing.assert_allclose(kind[i], read.max(0) if pool == "max" else read.mean(0), atol=1e-4)
    assert pairs.activity.tokens == 8 * (9 if over == "response" else 13)
    np.testing.assert_allclose(total_activity(engine, requests, over).total, pairs.activity.total, rtol=1e-5)


def test_pooled_values_lie_on_disk(tiny_subject: Any) -> None:
    prompts, requests = texts()
    pairs = read_pairs(HFEngine(tiny_subject()), prompts, requests, np.random.default_rng(0))
    assert isinstance(pairs.matched, np.memmap)
    assert separability(pairs.matched, pairs.mismatched)["auc"].between(0, 1).all()


def test_span_of_a_text() -> None:
    request = Request("x", (1, 2, 3), prefill_ids=(4, 5))
    assert span(request, "response") == (request, 3, 5)
    assert span(request, "all") == (request, 0, 5)


def test_together_is_the_mean_in_units_of_scale() -> None:
    one, two = np.float32([[1, 0, 4], [3, 9, 0]]), np.float32([[5, 0, 8], [5, 1, 2]])
    pairs = Pairs(("a", "b"), np.array([1, 0]), one, two, SimpleNamespace())  # type: ignore[arg-type]
    joint = together(pairs, [2, 0], np.array([2.0, 1.0]))
    assert joint.matched.tolist() == [[1.5], [1.5]]
    assert joint.mismatched.tolist() == [[4.5], [3.0]]
    assert joint.other is pairs.other
