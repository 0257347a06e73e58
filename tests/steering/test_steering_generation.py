"""Generation against Hugging Face's ``generate`` and against itself in other batches."""

from __future__ import annotations

import random
import subprocess
import sys
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from steering_requests import GREEDY, LAYER, direction, mixed_requests
from tiny_models import MODEL_ARCHITECTURES

from esr.errors import UserError
from esr.steering import cohorts
from esr.steering.batch import Batch
from esr.steering.cohorts import Cohort
from esr.steering.engine import Request, Sampling
from esr.steering.hf import HFEngine
from esr.steering.interventions import Add, Clamp
from esr.steering.sampling import Sampler


def tokens(engine: HFEngine, requests: list[Request]) -> dict[str, tuple[int, ...]]:
    return {r.id: r.token_ids for r in engine.generate(requests)}


@pytest.mark.parametrize("arch", MODEL_ARCHITECTURES)
def test_greedy_is_hugging_face_generate(tiny_subject: Any, arch: str) -> None:
    subject = tiny_subject(arch)
    requests = [
        Request(str(n), tuple(range(8, 8 + n)), sampling=Sampling(0, repetition_penalty=1.3, max_new_tokens=20))
        for n in (1, 7, 16, 33)  # length 1; padded; exactly the padding's multiple, so no padding; two blocks
    ]
    ours = tokens(HFEngine(subject), requests)
    for request in requests:
        ids = torch.tensor([request.prompt_ids])
        theirs = subject.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20, repetition_penalty=1.3,
            pad_token_id=0, eos_token_id=sorted(subject.end_ids),
        )[0, ids.shape[1] :].tolist()  # fmt: skip
        if theirs and theirs[-1] in subject.end_ids:
            theirs.pop()
        assert list(ours[request.id]) == theirs


def test_mixed_batch_equals_each_alone_in_any_order_and_size(tiny_subject: Any) -> None:
    subject, requests = tiny_subject(), mixed_requests(64)
    together = tokens(HFEngine(subject, 64), requests)
    assert len(set(together.values())) > 40, "requests must differ in effect"
    alone = {}
    for request in requests:
        alone |= tokens(HFEngine(subject, 1), [request])
    assert alone == together
    shuffled = requests.copy()
    random.Random(1).shuffle(shuffled)
    for size in (3, 17, 40):
        assert tokens(HFEngine(subject, size), shuffled) == together


def test_logits_do_not_depend_on_the_neighbours_bit_for_bit(tiny_subject: Any) -> None:
    """What the promise above rests on: with enough rows, BLAS treats every row alike."""
    engine = HFEngine(tiny_subject())
    seen: list[dict[str, torch.Tensor]] = []
    original = engine._forward

    def spy(*args: Any) -> torch.Tensor:
        logits = original(*args)
        seen.append({"first row": logits[0].clone()})
        return logits

    engine._forward = spy  # type: ignore[method-assign]
    requests = [Request(f"q{k}", (9, 20, 30 + k), (Add(direction(k), 1.0, 1),), GREEDY) for k in range(40)]
    for count in (1, 2, 16, 33, 40):
        seen.clear()
        list(engine.generate(requests[:count]))
        if count == 1:
            reference = [s["first row"] for s in seen]
        for a, b in zip(reference, [s["first row"] for s in seen], strict=False):
            assert torch.equal(a, b)


def test_same_tokens_after_a_restart_of_the_process(tiny_subject: Any, tmp_path: Any) -> None:
    spec = tiny_subject().spec
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import steering_requests as m\n"
        "from esr.subjects.loading import load_subject\nfrom esr.subjects.spec import SubjectSpec\n"
        "from esr.steering.hf import HFEngine\n"
        "subject = load_subject(SubjectSpec.model_validate_json(sys.argv[1]))\n"
        "got = {r.id: r.token_ids for r in HFEngine(subject, 5).generate(m.mixed_requests(12))}\n"
        "print(sorted(got.items()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, spec.model_dump_json(), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    here = tokens(HFEngine(tiny_subject(), 64), mixed_requests(12))
    assert out.stdout.strip().splitlines()[-1] == str(sorted(here.items()))


def test_zero_boost_and_no_clamp_change_nothing(tiny_subject: Any) -> None:
    subject = tiny_subject()
    plain = mixed_requests(16)
    bare = [Request(r.id, r.prompt_ids, (), r.sampling, r.seed, r.prefill_ids) for r in plain]
    zero = [Request(r.id, r.prompt_ids, (Add(direction(1), 0.0, 2),), r.sampling, r.seed, r.prefill_ids) for r in plain]
    neighbours = [Request("n", (9,), (Clamp(3, 1.0, LAYER), Add(direction(2), 4.0, 2)), GREEDY)]
    unsteered = tokens(HFEngine(subject), bare)
    assert tokens(HFEngine(subject), zero) == unsteered
    with_neighbour = tokens(HFEngine(subject), bare + neighbours)
    assert {k: v for k, v in with_neighbour.items() if k != "n"} == unsteered


def test_prefill_begins_the_response(tiny_subject: Any) -> None:
    engine = HFEngine(tiny_subject())
    whole = next(engine.generate([Request("a", (9, 20, 31), sampling=GREEDY)])).token_ids
    request = Request("b", (9, 20, 31), sampling=Sampling(0, max_new_tokens=12 - 4), prefill_ids=whole[:4])
    continued = next(engine.generate([request]))
    assert continued.token_ids == whole
    assert continued.text.startswith(tiny_subject().tokenizer.decode(list(whole[:4])))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_out_of_memory_halves_the_batch_and_loses_nothing(tiny_subject: Any, error: RuntimeError) -> None:
    subject, requests = tiny_subject(), mixed_requests(150)
    expected = tokens(HFEngine(subject, 64), requests)
    engine = HFEngine(subject, 64)
    original, calls = engine._forward, Counter[str]()

    def scarce(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls["all"] += 1
        if ids.shape[0] > 16 or calls["all"] == 30:  # too big a batch, and once in the middle of decoding
            calls["failed"] += 1
            raise error
        return original(ids, *rest)

    engine._forward = scarce  # type: ignore[method-assign]
    got = list(engine.generate(requests))
    assert calls["failed"] >= 2
    assert Counter(r.id for r in got) == Counter(r.id for r in requests)  # each once, none lost
    assert {r.id: r.token_ids for r in got} == expected
    engine._forward = original  # type: ignore[method-assign]
    assert tokens(engine, requests) == expected
    assert engine.batch_size < 16


def test_out_of_memory_behind_the_draw_changes_no_answer(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it in moving the rows together that go on, and what the failed step had made is free by then."""
    subject = tiny_subject()
    penalised = Sampling(0.8, repetition_penalty=1.3, max_new_tokens=40)
    requests = [replace(r, sampling=penalised) for r in mixed_requests(80)]
    expected = tokens(HFEngine(subject, 64), requests)
    draw, keep, retreat, calls = Sampler.draw, Cohort.keep, Batch.retreat, Counter[str]()
    made: list[weakref.ref[torch.Tensor]] = []

    def scarce_draw(self: Sampler, logits: torch.Tensor, step: Any) -> torch.Tensor:
        drawn = draw(self, logits, step)
        in_flight = isinstance(step, torch.Tensor)  # else a start
        calls["draw"] += in_flight
        if in_flight and calls["draw"] in (12, 30):
            made.append(weakref.ref(drawn))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return drawn

    def looked_at(self: Batch, rows: int) -> None:
        assert made[-1]() is None
        calls["retreat"] += 1
        retreat(self, rows)

    def scarce_keep(self: Cohort, rows: Any) -> list[int]:
        if calls["retreat"] == 2 and not calls["keep"]:
            calls["keep"] += 1
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return keep(self, rows)

    monkeypatch.setattr(Sampler, "draw", scarce_draw)
    monkeypatch.setattr(Batch, "retreat", looked_at)
    monkeypatch.setattr(Cohort, "keep", scarce_keep)
    got = list(HFEngine(subject, 64).generate(requests))
    assert (calls["retreat"], calls["keep"]) == (2, 1)
    assert Counter(r.id for r in got) == Counter(r.id for r in requests)
    assert {r.id: r.token_ids for r in got} == expected


@pytest.mark.parametrize("where", ["before", "in the middle"])
@pytest.mark.parametrize("call", [1, 2, 4])
def test_out_of_memory_in_moving_rows_together_changes_no_answer(
    tiny_subject: Any, monkeypatch: pytest.MonkeyPatch, where: str, call: int
) -> None:
    """Rows that have ended by then are answered, the others start anew, once each."""
    subject, requests = tiny_subject(), mixed_requests(150)
    expected = tokens(HFEngine(subject, 64), requests)
    keep, room, calls = Cohort.keep, cohorts._room, Counter[str]()

    def scarce_keep(self: Cohort, rows: Any) -> list[int]:
        calls["keep"] += 1
        if where == "before" and calls["keep"] == call:
            calls["failed"] += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        with monkeypatch.context() as patch:
            patch.setattr(cohorts, "_room", scarce_room)
            return keep(self, rows)

    def scarce_room(*arguments: Any) -> torch.Tensor:
        calls["room"] += 1
        if where == "in the middle" and calls["room"] == call + 1:
            calls["failed"] += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return room(*arguments)

    monkeypatch.setattr(Cohort, "keep", scarce_keep)
    got = list(HFEngine(subject, 64).generate(requests))
    assert calls["failed"] == 1
    assert Counter(r.id for r in got) == Counter(r.id for r in requests)
    assert {r.id: r.token_ids for r in got} == expected


def test_out_of_memory_at_one_row_is_a_clear_error(tiny_subject: Any) -> None:
    engine = HFEngine(tiny_subject(), 4)

    def never(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine._forward = never  # type: ignore[method-assign]
    with pytest.raises(UserError, match="out of memory at batch size 1"):
        list(engine.generate(mixed_requests(8)))


def test_hooks_never_outlive_a_call(tiny_subject: Any) -> None:
    subject = tiny_subject()
    hooks = lambda: sum(len(layer._forward_hooks) for layer in subject.layers)  # noqa: E731
    before = hooks()  # transformers may keep hooks of its own
    running = HFEngine(subject).generate(mixed_requests(8))
    next(running)
    assert hooks() == before  # not even while a generator is suspended
    running.close()
    engine, model_forward = HFEngine(subject), subject.model.forward

    def fail(*_: Any, **__: Any) -> None:
        assert hooks() > before
        raise RuntimeError("broken model")

    subject.model.forward = fail
    try:
        with pytest.raises(RuntimeError, match="broken model"):
            list(engine.generate([Request("x", (9,), (Add(direction(0), 1.0, 1),), GREEDY)]))
    finally:
        subject.model.forward = model_forward
    assert hooks() == before


def test_too_long_a_request_is_refused_before_anything_runs(tiny_subject: Any) -> None:
    engine = HFEngine(tiny_subject())
    fits = Request("fits", tuple([9] * 100), sampling=Sampling(0, max_new_tokens=28))
    assert len(next(engine.generate([fits])).token_ids) <= 28
    long = Request("long", tuple([9] * 101), sampling=Sampling(0, max_new_tokens=28))
    with pytest.raises(UserError, match=r"context of 128 tokens. Got 101 \+ 0 \+ 28 = 129 in request long"):
        engine.generate([fits, long])


def test_sampling_follows_the_softmax() -> None:
    """Chi-square of 20,000 draws, one seed each, against softmax(logits / T); and against the nucleus."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, -30.0])
    for top_p, kept in ((1.0, [0, 1, 2, 3, 4]), (0.9, [0, 1, 4])):
        requests = [Request("", (1,), sampling=Sampling(0.7, top_p=top_p), seed=s) for s in range(20_000)]
        drawn = Sampler(requests, 6, torch.device("cpu")).draw(logits.repeat(len(requests), 1), 3)
        expected = torch.softmax(logits / 0.7, 0)[kept]
        expected = (expected / expected.sum() * len(requests)).numpy()
        observed = torch.bincount(drawn, minlength=6)[kept].numpy()
        assert observed.sum() == len(requests)
        assert stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-3


def test_every_step_has_noise_of_its_own() -> None:
    """One request's draws over 20,000 steps follow the softmax too."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    steps = 20_000
    sampler = Sampler([Request("", (1,), sampling=Sampling(1.0, max_new_tokens=steps), seed=7)], 4, torch.device("cpu"))
    drawn = torch.cat([sampler.draw(logits, step) for step in range(steps)])
    expected = (torch.softmax(logits[0], 0) * steps).numpy()
    assert stats.chisquare(torch.bincount(drawn, minlength=4).numpy(), expected, sum_check=False).pvalue > 1e-3


def test_repetition_penalty_over_generated_spares_the_prompt() -> None:
    logits = torch.tensor([[3.0, 2.9, -1.0]])
    for over, expected in (("all", 1), ("generated", 0)):
        sampling = Sampling(0, repetition_penalty=2.0, penalty_over=over)  # type: ignore[arg-type]
        sampler = Sampler([Request("", (0,), sampling=sampling)], 3, torch.device("cpu"))
        assert sampler.draw(logits, 0).item() == expected
    sampler.saw(torch.tensor([0]))
    assert sampler.draw(logits, 1).item() == 1  # token 0 has now been generated
