"""Reading latents through vLLM, against the Hugging Face engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vllm_requests import check_divergences, interventions, mixed_requests, texts_to_compare

from esr.errors import SteeringError, UserError
from esr.steering.engine import Request
from esr.steering.interventions import Add, Direction


def test_read_is_hugging_faces(organism: Any, engine: Any, reference: Any) -> None:
    steered, largest = 0, 0.0
    for request in mixed_requests(organism, 12, seed=11, lengths=(5, 60)):
        ids, split = request.prompt_ids + request.prefill_ids, len(request.prompt_ids)
        (activity,) = reference.activity([(request, 0, len(ids))])
        latents = np.argsort(-activity.total)[:20].tolist()  # those that do something in this text
        found = engine.read(ids, latents, request.interventions, prompt_length=split)
        expected = reference.read(ids, latents, request.interventions, prompt_length=split)
        assert found.shape == (len(ids), 20)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        steered += np.abs(expected - reference.read(ids, latents)).max() > 0.1
        largest = max(largest, float(expected.max()))
    assert steered >= 4
    assert largest > 1


def test_activity_is_hugging_faces(organism: Any, engine: Any, reference: Any) -> None:
    requests = mixed_requests(organism, 70, seed=12, lengths=(5, 60))  # more than are read at a time
    spans = [(r, k % 4, len(r.prompt_ids) + len(r.prefill_ids) - k % 2) for k, r in enumerate(requests)]
    for found, expected in zip(engine.activity(spans), reference.activity(spans), strict=True):
        assert found.tokens == expected.tokens
        np.testing.assert_allclose(found.maximum, expected.maximum, atol=1e-4)
        np.testing.assert_allclose(found.total, expected.total, atol=1e-3)
        assert (found.active != expected.active).mean() < 1e-3  # at the edge of being active
    texts = [(r.prompt_ids, 1, len(r.prompt_ids)) for r in requests[:3]]
    for top, other in zip(engine.max_activations(texts), reference.max_activations(texts), strict=True):
        np.testing.assert_allclose(top, other, atol=1e-4)


def test_divergences_are_hugging_faces(organism: Any, engine: Any, reference: Any) -> None:
    """Of texts with more response tokens than are compared and with one, under more sets than run at a time."""
    texts = texts_to_compare(organism, [(1, 1), (30, 90), (50, 71)], sets=80)
    check_divergences(engine, reference, texts)


def test_nothing_is_kept_of_texts_that_were_compared(organism: Any, engine: Any, table: Any) -> None:
    push = Add(Direction("ones", np.ones(organism.d_model)), 3e38, 1)
    text = Request("text", (1, 40), prefill_ids=(50, 51))
    with pytest.raises(SteeringError, match="not finite in request text at layer 1"):
        list(engine.divergences([(text, [(push, push)])]))
    running = engine.divergences([(text, [()]), (text, [()])])
    next(running)
    running.close()
    assert (table._plain, table._rows) == ({}, {})
    with pytest.raises(UserError, match="0 response tokens"):
        list(engine.divergences([(Request("text", (1, 40)), [()])]))


def test_no_latents_and_one_token(engine: Any) -> None:
    assert engine.read((1, 40, 50), []).shape == (3, 0)
    assert engine.read((1,), [3, 5]).shape == (1, 2)


def test_what_cannot_be_read_is_refused(organism: Any, engine: Any) -> None:
    with pytest.raises(UserError, match=r"shorter than the context of 512 tokens\. Got 512"):
        engine.read(tuple(range(8, 520)), [3])
    with pytest.raises(UserError, match="latent of this SAE"):
        engine.read((1, 40), [1024])
    push = interventions(organism, np.random.default_rng(3), [1])
    with pytest.raises(UserError, match=r"within the text's 2 tokens. Got 1 to 3 of request short"):
        list(engine.activity([(Request("short", (1, 40), push), 1, 3)]))
