"""Rows in flight: what neighbours may not change, replacement of rows that end, memory."""

from __future__ import annotations

import itertools
import runpy
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from steering_requests import GREEDY, LAYER, direction, mixed_requests
from tiny_models import SAE_ARCHITECTURES

from esr.errors import UserError
from esr.steering import cohorts
from esr.steering.clamping import ClampedLatents
from esr.steering.cohorts import Cohort, _is_plain_step, _one_token
from esr.steering.engine import Request, Sampling
from esr.steering.hf import HFEngine
from esr.steering.interventions import Add, Clamp
from esr.steering.memory import bytes_per_row, fitting_rows
from esr.steering.plan import LayerPlan
from esr.steering.rows import MIN_ROWS


def tokens(engine: HFEngine, requests: list[Request]) -> dict[str, tuple[int, ...]]:
    return {r.id: r.token_ids for r in engine.generate(requests)}


def logits_of_first(engine: HFEngine, requests: list[Request]) -> list[torch.Tensor]:
    """The first row's logits, pass by pass, as long as it is there."""
    seen: list[torch.Tensor] = []
    original = engine._forward

    def spy(*args: Any) -> torch.Tensor:
        logits = original(*args)
        seen.append(logits[0].clone())
        return logits

    engine._forward = spy  # type: ignore[method-assign]
    list(engine.generate(requests))
    return seen


@pytest.mark.parametrize("sae", SAE_ARCHITECTURES)
def test_logits_do_not_depend_on_what_the_neighbours_clamp_bit_for_bit(tiny_subject: Any, sae: str) -> None:
    subject = tiny_subject("llama", sae)
    own = (Clamp(3, 2.0, LAYER), Add(direction(1), 1.0, 2))  # one latent: a product with one column has its own kernel
    brief = Sampling(0, max_new_tokens=4)
    first = Request("first", (9, 20, 30), own, brief)

    def neighbour(k: int, clamps: int) -> Request:
        wanted = tuple(Clamp((7 * k + j) % 96, 1.0, LAYER) for j in range(clamps))
        return Request(f"n{k}", (9, 20, 30 + k), wanted, brief)

    reference = logits_of_first(HFEngine(subject, 64), [first])
    for count, clamps in ((1, 1), (20, 0), (40, 30), (17, 7)):
        neighbours = [neighbour(k, clamps) for k in range(count)]
        seen = logits_of_first(HFEngine(subject, 64), [first, *neighbours])
        for ours, alone in zip(seen, reference, strict=False):
            assert torch.equal(ours, alone), (count, clamps)


def test_rows_that_end_are_replaced_and_every_answer_is_the_one_it_gives_alone(tiny_subject: Any) -> None:
    subject = tiny_subject()
    rng = np.random.default_rng(3)
    limits = [int(n) for n in rng.choice([1, 2, 5, 30], size=90)]
    requests = [
        replace(request, sampling=Sampling(0.9, max_new_tokens=limit))
        for request, limit in zip(mixed_requests(90, seed=4), limits, strict=True)
    ]
    engine = HFEngine(subject, 24)
    original, rows = engine._forward, []

    def spy(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if ids.shape[1] == 1:
            rows.append(len(ids))
        return original(ids, *rest)

    engine._forward = spy  # type: ignore[method-assign]
    together = tokens(engine, requests)
    alone: dict[str, tuple[int, ...]] = {}
    for request in requests[::6]:
        alone |= tokens(HFEngine(subject, 1), [request])
    assert {k: together[k] for k in alone} == alone
    assert max(rows) <= 24
    wanted = sum(len(t) for t in together.values())
    assert sum(rows) < 2.5 * wanted  # batches of 24 run to their ends would take 3.6 times as many
    assert len(rows) < len(requests) / 24 * 29


def test_a_step_is_what_apply_does(tiny_subject: Any) -> None:
    """Masks worked out on the host, a few at a time, against the mask of every position."""
    subject, rng = tiny_subject(), torch.Generator().manual_seed(0)
    requests = mixed_requests(48, seed=9)
    fast, slow = (LayerPlan(requests, LAYER, subject.reader, torch.device("cpu")) for _ in range(2))
    positions = np.array([len(r.prefill_ids) for r in requests])
    idle = 0
    for step in range(9):
        h = torch.randn(48, 1, 64, generator=rng)
        expected = slow.apply(h, torch.from_numpy(positions)[:, None], torch.ones(48, 1, dtype=torch.bool))
        if fast.prepare(positions):
            torch.testing.assert_close(fast.step(h), expected, atol=0, rtol=0)
            fast.commit()
        else:
            idle += 1
            assert torch.equal(h, expected)
        positions = positions + 1
        if step == 4:
            kept = torch.tensor([k for k in range(48) if k % 3])
            fast, requests = fast.keep(kept), [requests[k] for k in kept]
            counted = slow.counts[kept]
            slow = LayerPlan(requests, LAYER, subject.reader, torch.device("cpu"))
            slow.counts += counted
            positions = positions[kept.numpy()]
            break
    for _ in range(6):
        h = torch.randn(len(requests), 1, 64, generator=rng)
        expected = slow.apply(h, torch.from_numpy(positions)[:, None], torch.ones(len(h), 1, dtype=torch.bool))
        if fast.prepare(positions):
            assert torch.equal(fast.step(h), expected)
            fast.commit()
        positions = positions + 1
    assert fast.stepped.tolist() == slow.counts.tolist()


@pytest.mark.parametrize("sae", SAE_ARCHITECTURES)
@pytest.mark.parametrize("count", [2, 9])  # TopK compares few latents with the dictionary, and sorts for many
def test_activations_of_clamped_latents_are_saelens_own(tiny_subject: Any, sae: str, count: int) -> None:
    reader = tiny_subject("llama", sae).reader
    rng = torch.Generator().manual_seed(1)
    h = 2 * torch.randn(20, 3, 64, generator=rng)
    every = reader.encode(h)
    common = every.sum((0, 1)).argsort(descending=True)[:40]
    latents = common[torch.randint(40, (20, count), generator=rng)]
    found = ClampedLatents(reader, latents).activations(h)
    expected = every.gather(-1, latents.unsqueeze(1).expand(-1, 3, -1))
    assert (expected > 0).float().mean() > 0.1
    assert (expected == 0).float().mean() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_top_k_encodes_only_where_a_clamped_latent_may_be_active(
    tiny_subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = tiny_subject("llama", "topk").reader
    rng = torch.Generator().manual_seed(1)
    h = 2 * torch.randn(100, 2, 64, generator=rng)
    every = reader.encode(h)
    positive = (reader.pre_activations(reader.prepared(h), slice(None)) > 0).float().mean((0, 1))
    rare = ((positive - 0.2).abs()).argsort()[:20]  # above 0 at about a fifth of the positions
    latents = rare[torch.randint(20, (100, 1), generator=rng)]
    encoded, among = [], ClampedLatents._among_top_k

    def counted(self: ClampedLatents, x: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        encoded.append(len(x))
        return among(self, x, own)

    monkeypatch.setattr(ClampedLatents, "_among_top_k", counted)
    clamped = ClampedLatents(reader, latents)
    found = clamped.activations(h)
    expected = every.gather(-1, latents.unsqueeze(1).expand(-1, 2, -1))
    assert (expected > 0).any()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert 0 < sum(encoded) < 100
    for rows in (torch.arange(20), torch.arange(7, 61), torch.flip(torch.arange(100), (0,))):
        assert torch.equal(clamped.of(rows).activations(h[rows]), found[rows])  # whatever the neighbours


@pytest.mark.parametrize("kept", [[0, 1, 2, 3], [1, 3, 4, 6, 7], [7], [5, 6, 7]])
def test_a_cohort_keeps_the_right_rows(kept: list[int]) -> None:
    cohort = Cohort([0, 1, 2, 3, 0, 1, 2, 3], 4, 4)
    keys, values = torch.rand(8, 2, 4, 3), torch.rand(8, 2, 4, 3)
    cohort.extend(0, keys, values)
    cohort.filled = 4
    before, columns = cohort.mask(1, None, torch.device("cpu"), torch.float32)
    assert columns == slice(0, 16)
    assert (before[..., 5:] == -torch.inf).all()
    order = cohort.keep(kept)
    assert sorted(order) == kept
    assert len(kept) <= cohort.allocated <= 2 * len(kept)
    after, _ = cohort.mask(1, None, torch.device("cpu"), torch.float32)
    assert torch.equal(after, before[order])
    new = torch.rand(len(kept), 2, 1, 3)
    now_keys, now_values = cohort.extend(0, new, new)
    rest = torch.zeros(len(kept), 2, 11, 3)
    assert torch.equal(now_keys, torch.cat([keys[order], new, rest], 2))
    assert torch.equal(now_values, torch.cat([values[order], new, rest], 2))


@pytest.mark.parametrize(("heads", "group", "width"), [(4, 1, 32), (1, 4, 32), (2, 3, 80), (3, 1, 16)])
@pytest.mark.parametrize("filled", [16, 31, 40, 95])
def test_attention_of_one_token_is_pytorchs_and_no_bit_depends_on_the_other_rows(
    heads: int, group: int, width: int, filled: int
) -> None:
    rows = 19
    keys, values = torch.randn(rows, heads, filled + 1, width), torch.randn(rows, heads, filled + 1, width)
    query, padding = torch.randn(rows, heads * group, 1, width), [row % 7 for row in range(rows)]

    def attend(chosen: slice, window: int | None) -> torch.Tensor:
        cohort = Cohort(padding[chosen], filled, 40)
        cohort.extend(0, keys[chosen, :, :filled], values[chosen, :, :filled])
        cohort.filled = filled
        every = cohort.extend(0, keys[chosen, :, filled:], values[chosen, :, filled:])
        mask, columns = cohort.mask(1, window, query.device, query.dtype)
        return _one_token(None, query[chosen], *(kept[:, :, columns] for kept in every), mask)[0]

    for window in (None, 9):
        column = torch.arange(filled + 1)
        seen = column >= torch.tensor(padding).unsqueeze(1)
        seen &= column > filled - (window or filled + 1)
        expected = torch.nn.functional.scaled_dot_product_attention(
            query.double(), keys.double(), values.double(), seen[:, None, None], enable_gqa=True
        ).transpose(1, 2)
        together = attend(slice(None), window)
        torch.testing.assert_close(together.double(), expected, atol=1e-5, rtol=1e-5)
        for chosen in (slice(0, 1), slice(18, 19), slice(3, 5), slice(1, 17)):
            assert torch.equal(attend(chosen, window), together[chosen])


@pytest.mark.parametrize(("arch", "own"), [("llama", True), ("gemma2", False)])
def test_generating_goes_through_onednn_and_the_attention_of_one_token(
    tiny_subject: Any, monkeypatch: pytest.MonkeyPatch, arch: str, own: bool
) -> None:
    """gemma2 attends in a way of its own (a cap on its scores)."""
    calls, onednn = Counter[str](), torch.ops.mkldnn._linear_pointwise

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(cohorts, "_one_token", counted("attention", _one_token))
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted("linear", onednn))
    subject = replace(tiny_subject(arch), end_ids=frozenset())
    request = Request("x", (8, 9, 10), sampling=Sampling(0, max_new_tokens=6))
    list(HFEngine(subject).generate([request]))
    assert calls["linear"] >= 6 * 4 * subject.n_layers  # queries, keys, values and more at every pass
    assert calls["attention"] == (5 * subject.n_layers if own else 0)


def test_only_float32_steps_of_several_heads_take_the_attention_of_one_token() -> None:
    step = torch.empty(5, 4, 1, 8)
    assert _is_plain_step(step, {"softcap": None, "scaling": 0.1})
    assert not _is_plain_step(step.bfloat16(), {})  # its softmax would be rounded to 8 bits
    assert not _is_plain_step(torch.empty(5, 4, 3, 8), {})
    assert not _is_plain_step(step[:, :1], {})
    assert not _is_plain_step(step, {"softcap": 30.0})
    assert not _is_plain_step(step, {"position_bias": step})


@pytest.mark.parametrize("arch", ["gemma2", "gemma3"])
def test_windows_of_attention_end_where_the_model_says(tiny_subject: Any, arch: str) -> None:
    """A prompt longer than the window, its padding too, against one pass of the model without a cache."""
    subject = tiny_subject(arch)
    window = subject.model.config.get_text_config().sliding_window
    ids = tuple(int(t) for t in np.random.default_rng(0).integers(8, 100, size=window - 11))  # padded to less than it
    request = Request("x", ids, sampling=Sampling(0, max_new_tokens=subject.context - len(ids)))
    (answer,) = HFEngine(subject).generate([request])
    whole = ids + answer.token_ids
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([whole])).logits[0]
    assert logits.argmax(-1)[len(ids) - 1 : -1].tolist() == list(answer.token_ids)


def test_running_out_of_memory_takes_back_only_the_rows_started_last(tiny_subject: Any) -> None:
    subject = tiny_subject()
    requests = [Request(f"r{k}", (9, 10 + k), (Add(direction(k), 1.0, 1),), GREEDY) for k in range(32)]
    expected = tokens(HFEngine(subject, 32), requests)
    engine = HFEngine(subject, 32)
    original, calls, started = engine._forward, itertools.count(), []

    def once(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if next(calls) == 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if ids.shape[1] > 1:
            started.append(len(ids))
        return original(ids, *rest)

    engine._forward = once  # type: ignore[method-assign]
    got = Counter(r.id for r in engine.generate(requests))
    assert got == Counter(r.id for r in requests)
    assert started == [32, 16]  # half of them went on
    assert engine.batch_size == 16
    assert tokens(engine, requests) == expected


def test_rows_follow_from_the_free_memory(tiny_subject: Any) -> None:
    subject = tiny_subject()
    request = Request("x", tuple([9] * 20), sampling=Sampling(0, max_new_tokens=30))
    each = bytes_per_row(subject, 50)
    config = subject.model.config
    kept = 2 * 4 * config.num_key_value_heads * config.head_dim * 50 * 4
    assert kept < each < kept + 64 * config.vocab_size + 2**16
    assert fitting_rows(subject, [request], free=100 * each) == 40
    assert fitting_rows(subject, [request], free=100 * each, sharing=4) == 10
    assert fitting_rows(subject, [request], free=0) == 1
    assert fitting_rows(subject, [request], free=10**15) == fitting_rows(subject, []) >= MIN_ROWS
    assert HFEngine(subject).batch_size is None
    assert 1 <= fitting_rows(subject, [request]) <= fitting_rows(subject, [])


def test_a_model_that_attends_in_its_own_way_is_refused(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would see the last token only, without a complaint."""
    subject = tiny_subject()
    attention = sys.modules[type(subject.layers[0].self_attn).__module__]
    own = lambda module, q, k, v, mask, **_: (q.transpose(1, 2), None)  # noqa: E731
    monkeypatch.setattr(attention.ALL_ATTENTION_FUNCTIONS, "get_interface", lambda name, default: own, raising=True)
    with pytest.raises(UserError, match=r"attention interface\. Got a model of which 0 of 4 layers do"):
        list(HFEngine(subject).generate([Request("x", (9, 10), sampling=GREEDY)]))


def test_layers_of_another_kind_are_refused(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny_subject()
    monkeypatch.setattr(subject.model.config, "layer_types", ["full_attention", "linear_attention"], raising=False)
    with pytest.raises(UserError, match=r"full_attention or sliding_attention\. Got linear_attention"):
        HFEngine(subject).generate([Request("x", (9, 10), sampling=GREEDY)])


def test_the_gpu_benchmark_runs_on_a_tiny_model(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny"])
    runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "gpu.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "a copy moves" in out
    assert len([line for line in out.splitlines() if "%" in line]) == 2
