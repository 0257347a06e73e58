"""Reading whole dictionaries: texts batched and padded, against one text at a time and SAELens' own encode."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from steering_requests import LAYER, direction
from tiny_models import MODEL_ARCHITECTURES, SAE_ARCHITECTURES

import esr.steering.reading as reading
from esr.errors import SteeringError, UserError
from esr.steering.engine import Request
from esr.steering.hf import HFEngine
from esr.steering.interventions import RESPONSE_ONLY, Add, Clamp
from esr.steering.plan import LayerPlan
from esr.steering.reading import TextReader
from esr.subjects.latents import Activity


def texts(n: int = 12, seed: int = 4) -> list[Request]:
    """Prompts of 2-9 tokens with responses of 1-30."""
    rng = random.Random(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(8, 100) for _ in range(rng.randint(low, high)))

    return [Request(f"text {i}", tokens(2, 9), prefill_ids=tokens(1, 30)) for i in range(n)]


def over_response(requests: list[Request]) -> list[tuple[Request, int, int]]:
    return [(r, len(r.prompt_ids), len(r.prompt_ids) + len(r.prefill_ids)) for r in requests]


def hidden(subject: Any, request: Request) -> torch.Tensor:
    """Transformers' own hidden states of the one text, without a mask or padding."""
    with torch.no_grad():
        ids = torch.tensor([request.prompt_ids + request.prefill_ids])
        out = subject.model(input_ids=ids, output_hidden_states=True)
    return out.hidden_states[LAYER + 1][0]


@pytest.mark.parametrize("arch", MODEL_ARCHITECTURES)
def test_batched_residuals_are_each_texts_own(tiny_subject: Any, arch: str) -> None:
    subject, requests = tiny_subject(arch), texts()
    for h, request in zip(TextReader(subject).residuals(requests, LAYER), requests, strict=True):
        torch.testing.assert_close(h, hidden(subject, request), atol=1e-4, rtol=0)


@pytest.mark.parametrize("sae", SAE_ARCHITECTURES)
def test_activity_is_saelens_encode_summed_over_the_span(tiny_subject: Any, sae: str) -> None:
    subject, requests = tiny_subject("llama", sae), texts()
    found = list(HFEngine(subject).activity(over_response(requests)))
    assert len(found) == len(requests)
    for activity, request in zip(found, requests, strict=True):
        whole = subject.reader.sae.encode(hidden(subject, request)[len(request.prompt_ids) :]).double().numpy()
        assert activity.tokens == len(request.prefill_ids)
        np.testing.assert_allclose(activity.pooled("max"), whole.max(0), atol=1e-4)
        np.testing.assert_allclose(activity.pooled("mean"), whole.mean(0), atol=1e-4)
        near = (np.abs(whole) < 1e-3) & (whole != 0)  # may be on either side of 0 in another batch
        assert (np.abs(activity.active - (whole > 0).sum(0)) <= near.sum(0)).all()


def test_texts_are_steered_each_in_its_own_way(tiny_subject: Any) -> None:
    subject, (one, other, plain) = tiny_subject(), texts(3)
    push = Add(direction(4), 3.0, LAYER)
    steered = [
        Request("pushed", one.prompt_ids, (push,), prefill_ids=one.prefill_ids),
        Request("ablated", other.prompt_ids, (Clamp(7, 2.0, 0, RESPONSE_ONLY),), prefill_ids=other.prefill_ids),
        plain,
    ]
    found = list(HFEngine(subject).activity(over_response(steered)))
    for activity, request in zip(found, steered, strict=True):
        h = HFEngine(subject).residual(
            request.prompt_ids + request.prefill_ids,
            LAYER,
            request.interventions,
            prompt_length=len(request.prompt_ids),
        )
        expected = subject.reader.sae.encode(h[len(request.prompt_ids) :]).amax(0)
        np.testing.assert_allclose(activity.maximum, expected.numpy(), atol=1e-4)
    unsteered = next(HFEngine(subject).activity(over_response([one])))
    assert np.abs(unsteered.maximum - found[0].maximum).max() > 0.1


def test_texts_are_streamed_in_batches_that_follow_from_the_texts(
    tiny_subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "AHEAD", 5)
    monkeypatch.setattr(reading, "MOST_TOKENS", 64)
    rows: list[int] = []
    residuals = TextReader.residuals

    def counting(self: TextReader, requests: list[Request], layer: int) -> list[torch.Tensor]:
        rows.append(len(requests))
        return residuals(self, requests, layer)

    monkeypatch.setattr(TextReader, "residuals", counting)
    seen = 0

    def endless() -> Iterator[tuple[Request, int, int]]:
        nonlocal seen
        while True:
            seen += 1
            yield over_response([Request(str(seen), (5, 6), prefill_ids=tuple(range(8, 26)))])[0]

    next(HFEngine(tiny_subject()).activity(endless()))
    assert seen == 5
    assert rows == [2, 2, 1]  # two of 20 tokens, padded to 32


@pytest.mark.parametrize("sae", SAE_ARCHITECTURES)
def test_a_texts_readings_do_not_depend_on_what_it_is_read_with(tiny_subject: Any, sae: str) -> None:
    """Bit for bit, as for generated tokens: a study killed and resumed reads in other batches."""
    engine = HFEngine(tiny_subject("llama", sae))
    requests = [replace(r, interventions=(Add(direction(4), 2.0, LAYER),) if i % 2 else ()) for i, r in
                enumerate(texts(40))]  # fmt: skip
    alone = [next(engine.readings([r], [3, 9, 40])) for r in requests]
    spans = over_response(requests)
    alone_too = [next(engine.activity([span])) for span in spans]
    rng = random.Random(1)
    for _ in range(3):
        order = rng.sample(range(40), rng.randint(2, 40))
        for i, values in zip(order, engine.readings((requests[i] for i in order), [3, 9, 40]), strict=True):
            np.testing.assert_array_equal(values, alone[i])
        for i, activity in zip(order, engine.activity(spans[i] for i in order), strict=True):
            np.testing.assert_array_equal(activity.total, alone_too[i].total)
            np.testing.assert_array_equal(activity.maximum, alone_too[i].maximum)


def test_nothing_after_the_layer_read_is_computed(tiny_subject: Any) -> None:
    subject, computed = tiny_subject(), list[int]()
    hooks = [len(layer._forward_hooks) for layer in subject.layers]
    late = Add(direction(2), 5.0, LAYER + 1)
    handles = [
        layer.register_forward_hook(lambda *_, at=at: computed.append(at)) for at, layer in enumerate(subject.layers)
    ]
    try:
        found = HFEngine(subject).read(range(8, 20), [1, 2], [late])
    finally:
        for handle in handles:
            handle.remove()
    assert computed == list(range(LAYER + 1))
    assert len(subject.layers) > LAYER + 1
    np.testing.assert_array_equal(found, HFEngine(subject).read(range(8, 20), [1, 2]))
    assert [len(layer._forward_hooks) for layer in subject.layers] == hooks  # none of ours is left


def test_activities_add_up(tiny_subject: Any) -> None:
    subject, (request,) = tiny_subject(), texts(1)
    end = len(request.prompt_ids) + len(request.prefill_ids)
    whole, left, right = HFEngine(subject).activity([(request, 0, end), (request, 0, 4), (request, 4, end)])
    both = left + right
    assert both.tokens == whole.tokens == end
    for name in ("maximum", "total", "active", "density", "mean_active"):
        np.testing.assert_allclose(getattr(both, name), getattr(whole, name), atol=1e-4)


def test_density_and_mean_when_active() -> None:
    activity = Activity(4, np.float32([3, 0]), np.float64([4, 0]), np.array([2, 0]))
    assert activity.density.tolist() == [0.5, 0.0]
    assert activity.mean_active.tolist() == [2.0, 0.0]  # never active: 0, and no warning
    assert activity.pooled("mean").tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("start", "end"), [(3, 3), (0, 33), (-1, 2)])
def test_a_span_lies_within_its_text(tiny_subject: Any, start: int, end: int) -> None:
    long, short = Request("long", tuple(range(8, 60))), Request("short", tuple(range(8, 40)))
    with pytest.raises(UserError, match=rf"within the text's 32 tokens\. Got {start} to {end} of request short"):
        list(HFEngine(tiny_subject()).activity([(long, 0, 5), (short, start, end)]))


def test_steering_lost_while_reading_is_an_error(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LayerPlan, "apply", lambda self, h, positions, valid: h)
    lost = Request("lost", (8, 9), (Add(direction(0), 1.0, LAYER),), prefill_ids=(10, 11, 12))
    with pytest.raises(SteeringError, match="request lost: at layer 1, 0 positions changed, 5 scheduled"):
        list(HFEngine(tiny_subject()).activity(over_response([texts(1)[0], lost])))


def test_infinity_names_the_text(tiny_subject: Any) -> None:
    huge = Add(direction(0), 1e38, LAYER)
    broken = Request("broken", (8, 9), (huge, huge), prefill_ids=(10,))
    with pytest.raises(SteeringError, match="not finite in request broken"):
        list(HFEngine(tiny_subject()).activity(over_response([texts(1)[0], broken])))
