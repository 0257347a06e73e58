"""vLLM in processes of its own, and on several devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vllm_requests import answers, differing, mixed_requests

from esr.errors import SteeringError
from esr.steering.engine import Request, Sampling
from esr.steering.interventions import Add, Direction


def check_answers_and_readings(engine: Any, organism: Any, reference: Any, n: int) -> None:
    requests = mixed_requests(organism, n, seed=31)
    assert differing(answers(engine, requests), answers(reference, requests)) == []
    (request,) = mixed_requests(organism, 1, seed=33, lengths=(40, 41))
    ids = request.prompt_ids + request.prefill_ids
    (expected,) = reference.activity([(request, 0, len(ids))])
    (found,) = engine.activity([(request, 0, len(ids))])
    np.testing.assert_allclose(found.maximum, expected.maximum, atol=1e-4)
    latents = np.argsort(-expected.total)[:5].tolist()
    read = [e.read(ids, latents, request.interventions, prompt_length=40) for e in (engine, reference)]
    np.testing.assert_allclose(*read, atol=1e-4)


def test_an_own_process(organism: Any, run_engine: Any, reference: Any) -> None:
    with run_engine(organism.spec, own_process=True) as engine:
        check_answers_and_readings(engine, organism, reference, 64)
        running = engine.generate(mixed_requests(organism, 20, seed=32))
        next(running)
        running.close()
        huge = Add(Direction("ones", np.ones(organism.d_model)), 3e38, 1)
        with pytest.raises(SteeringError, match="not finite in request broken at layer 1"):
            list(engine.generate([Request("broken", (1, 40), (huge, huge), Sampling(0, max_new_tokens=4))]))
        check_answers_and_readings(engine, organism, reference, 8)


@pytest.mark.slow
def test_two_tensor_parallel_ranks(organism: Any, run_engine: Any, reference: Any) -> None:
    """The sums of the two halves are rounded in another order, so a token on the edge may differ."""
    with run_engine(organism.spec, own_process=True, tensor_parallel=2) as engine:
        requests = mixed_requests(organism, 64, seed=34)
        found, expected = answers(engine, requests), answers(reference, requests)
        assert len(differing(found, expected)) <= 1
        check_answers_and_readings(engine, organism, reference, 4)
