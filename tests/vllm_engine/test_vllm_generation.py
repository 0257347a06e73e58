"""The vLLM engine against the Hugging Face one: same requests, same answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vllm_requests import answers, differing, direction, mixed_requests

from esr.errors import SteeringError, UserError
from esr.steering.engine import Request, Sampling
from esr.steering.interventions import Add, Clamp, Direction
from esr.steering.vllm.table import RequestTable

GREEDY = Sampling(0, max_new_tokens=24)


def test_mixed_greedy_requests_are_answered_as_by_hugging_face(organism: Any, engine: Any, reference: Any) -> None:
    requests = mixed_requests(organism, 64, new=(8, 24, 120))
    expected = answers(reference, requests)
    assert differing(answers(engine, requests), expected) == []
    unsteered = answers(reference, [replace(r, interventions=()) for r in requests])
    assert len([id for id in expected if expected[id].token_ids != unsteered[id].token_ids]) > 25
    assert {r.finish for r in expected.values()} == {"stop", "length"}


@pytest.mark.slow
def test_mixed_greedy_requests_one_at_a_time(organism: Any, engine: Any, reference: Any) -> None:
    requests = mixed_requests(organism, 64, new=(8, 24, 120))
    together = answers(engine, requests)
    for each in (engine, reference):
        alone = {id: r for request in requests for id, r in answers(each, [request]).items()}
        assert differing(alone, together) == []


def steered_alike(organism: Any, n: int = 16) -> list[Request]:
    """Requests that differ in what is done, not in how long it takes: a mix-up would not show in any count."""
    return [
        Request(f"r{k}", (1, 40, 50, 60 + k), (Add(direction(organism, 20 * k), 9.0, 1), Clamp(k, 4.0, 2)), GREEDY)
        for k in range(n)
    ]


def test_control_interventions_handed_to_the_neighbour_are_seen(
    organism: Any, engine: Any, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = steered_alike(organism)
    expected = answers(reference, requests)
    assert differing(answers(engine, requests), expected) == []
    plan = RequestTable._plan
    monkeypatch.setattr(RequestTable, "_plan", lambda self, rows: plan(self, [*rows[1:], *rows[:1]]))
    assert len(differing(answers(engine, requests), expected)) > len(requests) / 2


def test_control_a_stream_without_the_residual_is_seen(
    organism: Any, engine: Any, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []
    for request in steered_alike(organism):
        (activity,) = reference.activity([(request, 0, 4)])
        ablated = [Clamp(int(latent), 0.0, 1) for latent in np.argsort(-activity.total)[:12]]
        requests.append(replace(request, interventions=tuple(ablated)))
    expected = answers(reference, requests)
    assert differing(answers(engine, requests), expected) == []
    monkeypatch.setattr("esr.steering.vllm.worker.residual_stream", lambda output: output[0])
    monkeypatch.setattr("esr.steering.vllm.worker.with_stream", lambda output, stream: (stream, output[1]))
    assert len(differing(answers(engine, requests), expected)) > len(requests) / 2


def test_answers_come_as_they_finish(organism: Any, engine: Any) -> None:
    lengths = [60, 8, 32, 2, 48]
    requests = [Request(f"{n}", (1, 40, 50), sampling=Sampling(0, max_new_tokens=n)) for n in lengths]
    running = engine.generate([replace(r, interventions=(Add(direction(organism, 3), 1.0, 1),)) for r in requests])
    found = [r for r in running if r.finish == "length"]
    assert len(found) > 2
    assert [int(r.id) for r in found] == sorted(int(r.id) for r in found)


def test_more_requests_than_fit_are_fed_as_others_finish(organism: Any, engine: Any, reference: Any) -> None:
    requests = mixed_requests(organism, 300, seed=5, new=(1, 2, 5))
    assert differing(answers(engine, requests), answers(reference, requests)) == []


def test_reading_and_another_call_inside_a_suspended_one(organism: Any, engine: Any, reference: Any) -> None:
    requests, others = mixed_requests(organism, 12, seed=1), mixed_requests(organism, 5, seed=2)
    running = engine.generate(requests)
    found = [next(running)]
    assert engine.read((1, 40, 50), [3, 4]).shape == (3, 2)
    assert differing(answers(engine, others), answers(reference, others)) == []
    found += running
    assert differing({r.id: r for r in found}, answers(reference, requests)) == []


def test_a_call_given_up_leaves_nothing_behind(organism: Any, engine: Any, reference: Any, table: Any) -> None:
    running = engine.generate(mixed_requests(organism, 40, seed=3))
    next(running)
    running.close()
    assert (table._rows, table._ids, engine._client._outputs) == ({}, {}, {})
    requests = mixed_requests(organism, 8, seed=4)
    assert differing(answers(engine, requests), answers(reference, requests)) == []
    assert (table._rows, table._ids) == ({}, {})


def test_a_seed_gives_the_same_text_in_any_batch(organism: Any, engine: Any) -> None:
    requests = mixed_requests(organism, 24, seed=6, temperature=0.8, top_p=0.95)
    together = answers(engine, requests)
    shuffled = random.Random(0).sample(requests, len(requests))
    neighbours = [replace(r, id=f"n{r.id}", seed=r.seed + 1) for r in requests]
    alone = {id: r for request in requests[:8] for id, r in answers(engine, [request]).items()}
    assert differing(answers(engine, shuffled), together) == []
    assert differing(alone, {id: together[id] for id in alone}) == []
    mixed = answers(engine, [*neighbours, *requests])
    assert differing({id: mixed[id] for id in together}, together) == []
    other = [id for id in together if mixed[f"n{id}"].token_ids != together[id].token_ids]
    assert len(other) > len(requests) / 2, "another seed, another text"


@pytest.fixture
def unhooked(engine: Any) -> Iterator[None]:
    """Forward hooks that are not called, as in compiled code."""
    model = engine._vllm.model_executor.driver_worker.worker.model_runner.get_model()
    hooks = {layer: dict(layer._forward_hooks) for layer in model.model.layers}
    for layer in hooks:
        layer._forward_hooks.clear()
    yield
    for layer, kept in hooks.items():
        layer._forward_hooks.update(kept)


@pytest.mark.usefixtures("unhooked")
def test_steering_that_did_not_happen_is_an_error(organism: Any, engine: Any) -> None:
    lost = Request("lost", (1, 40, 50), (Add(direction(organism, 3), 2.0, 1),), GREEDY)
    with pytest.raises(SteeringError, match=r"in request lost: at layer 1, 0 positions changed, \d+ scheduled"):
        list(engine.generate([lost]))
    with pytest.raises(SteeringError, match="in request read: at layer 1, 0 positions changed, 3 scheduled"):
        engine.read((1, 40, 50), [3], lost.interventions)
    assert len(list(engine.generate([replace(lost, interventions=())]))) == 1


def test_tokens_this_worker_did_not_compute_are_an_error(
    organism: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a prefix cache would have it: positions 0..1 came from somewhere else."""
    begin = RequestTable.begin

    def late(self: Any, ids: Any, starts: Any, lengths: Any) -> None:
        begin(self, ids, [start + 2 for start in starts], lengths)

    monkeypatch.setattr(RequestTable, "begin", late)
    request = Request("cached", (1, 40, 50), (Add(direction(organism, 3), 2.0, 1),), GREEDY)
    with pytest.raises(SteeringError, match="in request cached: tokens 0 to 1 were not computed here"):
        list(engine.generate([request]))


def test_infinity_names_request_layer_and_boost(organism: Any, engine: Any) -> None:
    huge = Add(Direction("ones", np.ones(organism.d_model)), 3e38, 1)
    broken = Request("broken", (1, 40, 50), (huge, huge), GREEDY)
    with pytest.raises(SteeringError, match=r"not finite in request broken at layer 1, boost 3e\+38 on ones"):
        list(engine.generate([*mixed_requests(organism, 4), broken]))
    requests = mixed_requests(organism, 4)
    assert len(answers(engine, requests)) == 4  # the engine goes on


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (
            Sampling(0, repetition_penalty=1.2, penalty_over="generated", max_new_tokens=8),
            "repetition penalty counts prompt and response",
        ),
        (Sampling(0.005, max_new_tokens=8), r"temperature is 0 or lies in 0\.01\.\.2\. Got 0\.005"),
        (Sampling(2.5, max_new_tokens=8), r"Got 2\.5"),
        (Sampling(0, max_new_tokens=510), r"context of 512 tokens\. Got 3 \+ 0 \+ 510 = 513 in request x"),
    ],
)
def test_what_vllm_cannot_do_is_refused_before_anything_runs(engine: Any, sampling: Sampling, message: str) -> None:
    with pytest.raises(UserError, match=message):
        engine.generate([Request("x", (1, 40, 50), sampling=sampling)])


def test_the_whole_context_is_used(organism: Any, engine: Any, reference: Any) -> None:
    request = Request("x", tuple(range(8, 508)), sampling=Sampling(0, max_new_tokens=12))
    push = replace(request, interventions=(Add(direction(organism, 3), 2.0, 1),))
    assert differing(answers(engine, [push]), answers(reference, [push])) == []


def test_a_steered_prompts_keys_serve_no_other_request(organism: Any, engine: Any, reference: Any) -> None:
    """Longer than vLLM's blocks, so that a prefix cache would take hold."""
    plain = Request("plain", tuple(range(8, 308)), sampling=GREEDY)
    steered = Request("steered", plain.prompt_ids, (Add(direction(organism, 3), 9.0, 0),), GREEDY)
    for request in (steered, plain, steered):
        assert differing(answers(engine, [request]), answers(reference, [request])) == []
