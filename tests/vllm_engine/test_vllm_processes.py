"""vLLM in processes of its own, and on several devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import psutil
import pytest
from vllm_requests import answers, check_divergences, differing, mixed_requests, texts_to_compare

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
    check_divergences(engine, reference, texts_to_compare(organism, [(40, 30)], sets=8))


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


OWNER = """
import sys
from esr.steering.make import load_for, make_engine
from esr.steering.settings import EngineSettings
from esr.steering.engine import Request, Sampling
from esr.steering.stopping import stop
from esr.subjects.published import published_subject

spec = published_subject("organism").spec
settings = EngineSettings(
    backend="vllm", vllm={"cache_gib": 0.25, "tensor_parallel": int(sys.argv[1])}
)
engine = make_engine(load_for(spec, settings), settings)
print("starting", flush=True)
engine.started()
requests = [Request(f"r{k}", (1, 40, 50 + k % 9), sampling=Sampling(0, max_new_tokens=200)) for k in range(400)]
n = 0
with stop.listening(lambda: print("stopping", flush=True)), stop.finishing():
    for _ in engine.generate(requests):
        n += 1
        if n == 5:
            print("running", flush=True)
engine.close()
print("finished", n, flush=True)
"""


@contextmanager
def owner(tensor_parallel: int = 1) -> Iterator[subprocess.Popen[str]]:
    """A process that runs an engine, in a session of its own: what Ctrl-C in a terminal reaches."""
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    command = [sys.executable, "-W", "ignore", "-c", OWNER, str(tensor_parallel)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def await_word(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line
    raise AssertionError(f"it ended before it said {word}")


def engines_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """vLLM's processes, which run its code: not the helper that multiprocessing starts to track resources."""
    engines = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # ended since, or a zombie
            if "resource_tracker" not in " ".join(child.cmdline()):
                engines.append(child)
    return engines


def assert_gone(processes: list[psutil.Process], within: float = 60) -> None:
    _, left = psutil.wait_procs(processes, timeout=within)
    assert [p for p in left if p.status() != psutil.STATUS_ZOMBIE] == []


def check_killed(tensor_parallel: int) -> None:
    with owner(tensor_parallel) as process:
        await_word(process, "running")
        engines = engines_of(process)
        assert len(engines) >= (1 if tensor_parallel == 1 else 3)
        process.kill()
        assert_gone(engines)


def test_nothing_outlives_a_killed_owner() -> None:
    check_killed(1)


@pytest.mark.slow
def test_nothing_outlives_a_killed_owner_of_two_ranks() -> None:
    check_killed(2)


@pytest.mark.slow
def test_nothing_outlives_an_owner_killed_while_the_engine_starts() -> None:
    with owner() as process:
        await_word(process, "starting")
        while not (engines := engines_of(process)):
            time.sleep(0.05)
        time.sleep(1.0)
        process.kill()
        assert_gone(engines, within=420)  # before its first message to the owner, vLLM itself gives up after 5 minutes


def test_ctrl_c_lets_requests_finish_and_ends_the_engine() -> None:
    """As in a terminal: every process of the session gets it."""
    with owner() as process:
        await_word(process, "running")
        engines = engines_of(process)
        os.killpg(process.pid, signal.SIGINT)
        await_word(process, "stopping")
        finished = int(await_word(process, "finished").split()[1])
        assert 5 <= finished < 400
        assert process.wait(timeout=60) == 0
        assert_gone(engines)
