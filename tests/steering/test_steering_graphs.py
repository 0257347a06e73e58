"""Recorded decoding steps against ordinary ones, on a tape that freezes what a CUDA graph freezes."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from frozen_tape import REFUSED, Tape
from steering_requests import LAYER, direction, mixed_requests
from tiny_models import SAE_ARCHITECTURES

from esr.errors import SteeringError, UserError
from esr.steering import graphs
from esr.steering.cohorts import Cohort
from esr.steering.engine import Request, Response, Sampling
from esr.steering.graphs import GraphedSteps, _FixedCache, _Recorded
from esr.steering.hf import HFEngine
from esr.steering.interventions import Add, Clamp, Direction, Schedule
from esr.steering.make import make_engine, start_engine
from esr.steering.settings import EngineSettings
from esr.subjects.loading import load_subject
from esr.subjects.spec import Dtype, SaeSpec, SubjectSpec


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """TopK without looking where latents may be active; and recordings even if short-lived."""
    monkeypatch.setattr("esr.steering.clamping._looks_first", lambda device: False)
    monkeypatch.setattr(graphs, "_WORTH", 0)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recorded step is compared with an ordinary one on the same inputs, for the rows that have not ended."""
    original = GraphedSteps.logits

    def logits(self: GraphedSteps, layout: Any, cohorts: Any, active: Any, ordinary: Any) -> torch.Tensor:
        expected = ordinary().clone()
        found = original(self, layout, cohorts, active, ordinary)
        alive = layout.alive[:, 0].bool()
        torch.testing.assert_close(found[alive], expected[alive], atol=2e-4, rtol=1e-4)
        return found

    monkeypatch.setattr(GraphedSteps, "logits", logits)


def answers(subject: Any, requests: Sequence[Request], size: int = 64, record: Any = None) -> dict[str, Response]:
    return {r.id: r for r in HFEngine(subject, size, record).generate(requests)}


def longer(n: int, seed: int = 0) -> list[Request]:
    """Mixed requests of 2 to 30 new tokens."""
    limits = np.random.default_rng(seed).choice([2, 6, 20, 30], size=n)
    return [
        replace(r, sampling=replace(r.sampling, max_new_tokens=int(k)))
        for r, k in zip(mixed_requests(n, seed), limits, strict=True)
    ]


def plain(k: int, new: int, prompt: int = 3) -> Request:
    return Request(f"p{k}", tuple(range(8, 8 + prompt)), sampling=Sampling(0, max_new_tokens=new), seed=k)


def added(start: int, end: int, new: int = 20, name: str = "added", layer: int = LAYER) -> Request:
    add = Add(direction(0), 1.0, layer, Schedule(start, end))
    return Request(name, (9, 20, 30), (add,), Sampling(0, max_new_tokens=new))


# ---- the same answers


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(
    ("arch", "sae"),
    [*(("llama", sae) for sae in SAE_ARCHITECTURES), ("gemma2", "standard"), ("gemma3", "topk"), ("qwen3", "gated")],
)
def test_mixed_requests_get_the_answers_of_ordinary_steps(tiny_subject: Any, arch: str, sae: str) -> None:
    """Greedy and sampled, adds and clamps at several layers, schedules that begin and end, several cohorts, rows that
    end at other times and are replaced; every answer with its count of positions changed."""
    subject, requests, tape = tiny_subject(arch, sae), longer(60, seed=3), Tape()
    expected = answers(subject, requests, 24)
    assert answers(subject, requests, 24, tape) == expected
    assert sum(r.steered_positions for r in expected.values()) > 300
    assert tape.recorded > 20
    assert tape.replayed > tape.recorded + 10  # each is replayed once to be checked


@pytest.mark.usefixtures("watched")
def test_many_steps_of_few_recordings(tiny_subject: Any) -> None:
    """Where rows stay and no schedule ends, nearly all tokens come from recordings."""
    subject, tape = tiny_subject("llama", "jumprelu"), Tape()
    requests = [
        replace(r, sampling=replace(r.sampling, max_new_tokens=70), interventions=own)
        for r in mixed_requests(20, seed=5)
        for own in [tuple(replace(i, schedule=Schedule()) for i in r.interventions)]
    ]
    subject = replace(subject, end_ids=frozenset())
    assert answers(subject, requests, 20, tape) == answers(subject, requests, 20)
    assert tape.replayed >= 69
    assert tape.recorded <= 3


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("arch", ["gemma2", "gemma3"])
def test_windows_of_attention_move_on(tiny_subject: Any, arch: str) -> None:
    """Prompts shorter than the window, answers that leave it behind."""
    subject = replace(tiny_subject(arch), end_ids=frozenset())
    rng = np.random.default_rng(0)
    requests = [
        Request(str(n), tuple(int(t) for t in rng.integers(8, 100, size=n)), sampling=Sampling(0, max_new_tokens=40))
        for n in (30, 50, 62)
    ]
    assert subject.model.config.get_text_config().sliding_window == 64
    tape = Tape()
    assert answers(subject, requests, 3, tape) == answers(subject, requests, 3)
    assert tape.replayed >= 39


def test_memory_nobody_has_written_to_is_not_read(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values that are only hidden, not skipped, are made of zeros."""

    def poisoned(self: torch.Tensor, *shape: int) -> torch.Tensor:
        return torch.full(shape, torch.nan, dtype=self.dtype)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    subject, requests, tape = tiny_subject(), longer(24, seed=8), Tape()
    assert answers(subject, requests, 24, tape) == answers(subject, requests, 24)
    assert tape.replayed > tape.recorded


def test_infinity_is_reported_as_without_recordings(tiny_subject: Any) -> None:
    subject, boost = replace(tiny_subject(), end_ids=frozenset()), 2e38 / float(direction(0).vector.max())
    huge = Add(direction(0), boost, 2, Schedule.from_token(4))  # finite, and twice that is not
    requests = [plain(0, 12), Request("broken", (9, 20), (huge, huge), Sampling(0, max_new_tokens=12))]
    for record in (None, Tape()):
        with pytest.raises(SteeringError, match=r"request broken at layer 2, boost \d"):
            answers(subject, requests, 8, record)


def test_infinity_in_a_step_launched_again_is_reported(tiny_subject: Any) -> None:
    """The layer is looked for in what the recording left there."""
    left = []

    def record(step: Any) -> Any:
        warm, replay = Tape()(step)

        def broken() -> torch.Tensor:
            logits = replay()
            left.append(logits)
            if len(left) == 5:
                logits[1, 0] = torch.inf
            return logits

        return warm, broken

    with pytest.raises(SteeringError, match=r"request added at layer the last one, boost 1 on random:0"):
        answers(tiny_subject(), [plain(0, 12), added(0, 20)], 2, record)


def test_a_cohort_that_has_ended_may_be_full(tiny_subject: Any) -> None:
    """Its row stays among many for a while, beyond its last column, and a step is recorded meanwhile."""
    subject, tape = replace(tiny_subject(), end_ids=frozenset()), Tape()
    requests = [*(added(6, 12, name=f"r{k}") for k in range(30)), plain(0, 2, prompt=20)]
    assert answers(subject, requests, 31, tape) == answers(subject, requests, 31)
    assert tape.recorded == 3


# ---- recorded when needed, and only then


@pytest.mark.parametrize(
    ("requests", "size", "recordings"),
    [
        ([plain(0, 20)], 1, 1),
        ([plain(0, 20), plain(1, 20, prompt=17)], 2, 1),  # two cohorts
        ([plain(0, 65)], 1, 1),
        ([plain(0, 66)], 1, 2),  # columns are filled
        ([added(6, 12)], 1, 3),  # a schedule begins and ends
        ([added(6, 12), added(6, 12, name="other", layer=2)], 2, 3),
        ([added(-3, 0)], 1, 1),  # over before the first step
        ([plain(0, 20), plain(1, 20), plain(2, 20)], 2, 2),  # rows go and others come
        ([*(plain(k, 20) for k in range(19)), plain(19, 10)], 20, 1),  # one of 20 ends, and stays
        ([*(plain(k, 20) for k in range(16)), *(plain(k, 10) for k in range(16, 20))], 20, 2),  # a fifth is taken out
        ([plain(0, 1)], 1, 0),
    ],
)
def test_a_step_is_recorded_anew_exactly_when_it_changes(
    tiny_subject: Any, requests: list[Request], size: int, recordings: int
) -> None:
    subject, tape = replace(tiny_subject(), end_ids=frozenset()), Tape()
    assert answers(subject, requests, size, tape) == answers(subject, requests, size)
    assert tape.recorded == recordings


@pytest.mark.parametrize(
    ("request_", "recordings"),
    [(added(6, 12, new=30), 1), (plain(0, 9), 0), (plain(0, 10), 1), (plain(0, 66), 1)],  # 1: after its schedule's end
)
def test_what_ends_soon_is_not_recorded(
    tiny_subject: Any, monkeypatch: pytest.MonkeyPatch, request_: Request, recordings: int
) -> None:
    monkeypatch.setattr(graphs, "_WORTH", 8)
    subject, tape = replace(tiny_subject(), end_ids=frozenset()), Tape()
    assert answers(subject, [request_], 1, tape) == answers(subject, [request_], 1)
    assert tape.recorded == recordings


def test_a_recording_gives_its_memory_back_before_the_next_is_made(tiny_subject: Any) -> None:
    earlier: list[Any] = []

    def record(step: Any) -> Any:
        assert all(result() is None for result in earlier)
        warm, replay = Tape()(step)
        earlier.append(weakref.ref(replay()))
        return warm, replay

    answers(replace(tiny_subject(), end_ids=frozenset()), [added(6, 12)], 1, record)
    assert len(earlier) == 3


def test_the_engine_says_that_it_records(tiny_subject: Any) -> None:
    assert HFEngine(tiny_subject(), record=Tape()).about() == {"engine": "hf", "device": "cpu", "cuda_graphs": "on"}
    assert "cuda_graphs" not in HFEngine(tiny_subject()).about()


# ---- a recording that does not do what it should is caught


@pytest.mark.parametrize(
    "requests",
    [
        [added(6, 12)],
        [added(6, 12), added(12, 18, name="next")],  # as many positions before as after
        [plain(0, 6), plain(1, 20), plain(2, 20)],  # nothing steered, but other rows
    ],
)
def test_a_stale_recording_is_caught(
    tiny_subject: Any, monkeypatch: pytest.MonkeyPatch, requests: list[Request]
) -> None:
    monkeypatch.setattr(_Recorded, "is_for", lambda self, serials: True)
    with pytest.raises(SteeringError, match=r"^Steering did not happen as scheduled: a recorded decoding step"):
        answers(replace(tiny_subject(), end_ids=frozenset()), requests, 2, Tape())


def test_a_recording_that_stops_running_is_caught(tiny_subject: Any) -> None:
    launches: list[Callable[[], torch.Tensor]] = []

    def record(step: Any) -> Any:
        warm, replay = Tape()(step)
        result = replay()

        def tired() -> torch.Tensor:
            launches.append(replay)
            return replay() if len(launches) < 5 else result

        return warm, tired

    with pytest.raises(SteeringError, match=r"did \[4, \d+\], \[5, \d+\] was prepared"):
        answers(tiny_subject(), [plain(0, 20)], 1, record)


def test_a_recording_without_the_steering_is_caught(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although it was there while warming up, and no logit tells."""
    original, passes = graphs.stepping, []

    def stepping(*args: Any) -> Any:
        passes.append(args)
        return original(*args) if len(passes) == 1 else nullcontext()

    monkeypatch.setattr(graphs, "stepping", stepping)
    request = Request("x", (9, 20), (Add(direction(0), 1e-6, LAYER),), Sampling(0, max_new_tokens=9))
    with pytest.raises(SteeringError, match=r"did \[1, \d+, 0\], \[1, \d+, \d+\] was prepared"):
        answers(tiny_subject(), [request], 1, Tape())


@pytest.mark.parametrize("wrong", [0.5, torch.nan])
def test_one_row_other_than_in_the_warm_up_is_caught(tiny_subject: Any, wrong: float) -> None:
    def record(step: Any) -> Any:
        warm, replay = Tape()(step)

        def other() -> torch.Tensor:
            logits = replay()
            logits[3, :50] += wrong
            return logits

        return warm, other

    with pytest.raises(SteeringError, match=r"other logits than its own warm-up: .* Set cuda_graphs = false"):
        answers(tiny_subject(), [plain(k, 9) for k in range(12)], 12, record)


def test_attention_over_other_columns_is_caught(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Cohort.mask_at
    monkeypatch.setattr(Cohort, "mask_at", lambda self, at, *rest: original(self, at + 20, *rest))
    with pytest.raises(SteeringError, match="other logits than an ordinary step"):
        answers(tiny_subject(), [plain(k, 9, prompt=9) for k in range(20)], 20, Tape())


def test_columns_of_the_moment_of_recording_are_caught_by_these_tests(
    tiny_subject: Any, monkeypatch: pytest.MonkeyPatch, watched: None
) -> None:
    """What the tape is for: a column known to Python is frozen with the recording."""

    def seen(self: _FixedCache, k: int, *rest: Any) -> Any:
        return _FixedCache.__base__._seen(self, k, *rest)

    monkeypatch.setattr(_FixedCache, "_seen", seen)
    with pytest.raises(AssertionError, match="not close"):
        answers(tiny_subject(), [plain(0, 9)], 1, Tape())


def test_a_step_that_waits_for_the_device_is_refused(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esr.steering.clamping._looks_first", lambda device: True)  # as on a CPU
    requests = [Request(str(k), (9, 20, 30), (Clamp(k, 3.0, LAYER),), Sampling(0, max_new_tokens=9)) for k in range(40)]
    with pytest.raises(UserError, match=rf"steps can be recorded\. Got {REFUSED}.*Set cuda_graphs = false"):
        answers(tiny_subject("llama", "topk"), requests, 64, Tape())


def test_running_out_of_memory_while_recording_costs_rows_and_no_answer(tiny_subject: Any) -> None:
    subject, tape, failed = tiny_subject(), Tape(), []

    def record(step: Any) -> Any:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tape(step)

    requests = longer(32, seed=2)
    assert answers(subject, requests, 32, record) == answers(subject, requests, 32)
    assert tape.recorded > 0


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_rounding_is_far_from_an_alarm(monkeypatch: pytest.MonkeyPatch, dtype: Dtype, near: float) -> None:
    """The organism with adds and TopK clamps: 0 from the warm-up, and little from ordinary steps, row by row."""
    sae = SaeSpec(path="<packaged>/sae")
    subject = load_subject(SubjectSpec(model="organism", dtype=dtype, device="cpu", steer_layer=1, sae=sae))
    requests = []
    for k in range(64):
        add = Add(Direction(f"latent:{k}", subject.require_reader().direction(k)), 3.0, 1)
        clamps = (Clamp(k + 100, 2.0, 1), Clamp(k + 300, 0.0, 1, Schedule(5, 30)))
        ids = tuple(int(t) for t in np.random.default_rng(k).integers(8, 200, size=(5, 20)[k % 2]))
        own = [(), (add,), (add, *clamps)][k % 3]
        requests.append(Request(str(k), ids, interventions=own, sampling=Sampling(k % 2, max_new_tokens=60), seed=k))
    measured, distances = [], graphs._distances

    def measure(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
        measured.append(distances(found, expected))
        return measured[-1]

    monkeypatch.setattr(graphs, "_distances", measure)
    answers(subject, requests, 64, Tape())
    from_warm, from_ordinary = measured[::2], measured[1::2]
    print(
        f"{dtype}: median {max(d.median() for d in from_ordinary):.2g}, worst {max(d.max() for d in from_ordinary):.2g}"
    )
    assert len(from_ordinary) > 2
    assert all(d.max() == 0 for d in from_warm)
    assert 0 < max(d.max() for d in from_ordinary) < near


# ---- where there are no CUDA graphs


def test_another_backend_or_device_is_refused(tiny_subject: Any) -> None:
    with pytest.raises(UserError, match=r"setting of the hf engine\. Got backend = vllm"):
        make_engine(tiny_subject(), EngineSettings(backend="vllm", cuda_graphs=True))
    for make in (make_engine, start_engine):
        with pytest.raises(UserError, match=r"one CUDA device\. Got cpu\. Set cuda_graphs = false in \[engine\]"):
            make(tiny_subject(), EngineSettings(cuda_graphs=True))


def test_a_model_spread_over_devices_is_refused() -> None:
    first, second = (SimpleNamespace(device=torch.device("cuda", k)) for k in (0, 1))
    for parameters, reader in (([first, second], None), ([first], second)):
        subject: Any = SimpleNamespace(model=SimpleNamespace(parameters=lambda p=parameters: p), reader=reader)
        with pytest.raises(UserError, match=r"one CUDA device\. Got cuda:0, cuda:1"):
            graphs.cuda_graphs(subject)


# ---- PyTorch's part, as far as a machine without a GPU can tell: calls in the documented order, arguments it has


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of torch.cuda, which is a stand-in."""
    made: list[str] = []

    class Stream:
        def __init__(self, name: str = "side") -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            made.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def within(name: str) -> Any:
        made.append(f"in {name}")
        yield
        made.append(f"out of {name}")

    signature = inspect.signature(torch.cuda.graph)

    def graph(*args: Any, **kwargs: Any) -> Any:
        stream = signature.bind(*args, **kwargs).arguments["stream"]
        return within(f"capture on {stream.name}")

    stand_in = SimpleNamespace(
        Stream=Stream, current_stream=lambda: Stream("main"), stream=lambda s: within(s.name), graph=graph,
        device=lambda device: within(str(device)), CUDAGraph=lambda: SimpleNamespace(replay=lambda: made.append("go")),
    )  # fmt: skip
    for name in vars(stand_in):
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, getattr(stand_in, name))
    return made


def on_cuda() -> Any:
    on = SimpleNamespace(device=torch.device("cuda", 0))
    return SimpleNamespace(model=SimpleNamespace(parameters=lambda: [on]), device=torch.device("cuda"), reader=on)


def test_a_step_is_warmed_up_on_a_side_stream_and_captured(calls: list[str]) -> None:
    record = graphs.cuda_graphs(on_cuda())
    calls.clear()
    results = [torch.zeros(1), torch.ones(1)]

    def step() -> torch.Tensor:
        calls.append("step")
        return results[calls.count("step") - 1]

    warm, replay = record(step)
    assert calls == [
        "in cuda:0", "side waits for main", "in side", "step", "out of side", "main waits for side",
        "in main", "in capture on side", "step", "out of capture on side", "out of main", "out of cuda:0",
    ]  # fmt: skip
    assert warm is results[0]
    assert replay() is results[1]
    assert calls[-1] == "go"
    assert calls.count("step") == 2


def test_memory_that_runs_out_in_a_capture_is_told_apart(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def capture(*_: Any, **__: Any) -> Any:
        try:
            yield
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", capture)

    def step() -> torch.Tensor:
        if "in main" in calls:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(1)

    with pytest.raises(torch.OutOfMemoryError):
        graphs.cuda_graphs(on_cuda())(step)
