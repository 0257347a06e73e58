"""Several engines as Ray actors: the same answers as one, and a lost one is made up for."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "steering"))
from steering_requests import direction, mixed_requests

from esr.errors import SteeringError, UserError
from esr.steering.engine import Request, Sampling
from esr.steering.interventions import Add
from esr.steering.make import load_for, make_engine
from esr.steering.replicas.cluster import with_whole_paths
from esr.steering.settings import EngineSettings
from esr.steering.stopping import stop
from esr.subjects.published import published_subject
from esr.subjects.spec import SaeSpec, SubjectSpec

pytest.importorskip("ray")
TWO = EngineSettings(replicas=2, batch_size=16)


def alive(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def subject(tiny_subject: Any) -> Any:
    return tiny_subject()


@pytest.fixture(scope="module")
def one(subject: Any) -> Any:
    return make_engine(subject, EngineSettings())


@pytest.fixture(scope="module")
def two(subject: Any) -> Any:
    engine = make_engine(load_for(subject.spec, TWO), TWO, subject.spec)
    yield engine
    pids = processes(engine)
    engine.close()
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids)), "a replica outlives its engine"


def processes(engine: Any) -> list[int]:
    dealer = engine.started()._dealer
    while len(found := dealer.started()) < 2:
        dealer._note_started(dealer._wait([w.starting for w in dealer._workers if w.starting is not None]))
    return [int(about["pid"]) for about in found]


def answers(engine: Any, requests: list[Request]) -> dict[str, Any]:
    found = list(engine.generate(requests))
    assert len(found) == len({r.id for r in found}), "twice"
    return {r.id: r for r in found}


def test_the_answers_of_one_engine(one: Any, two: Any) -> None:
    requests = mixed_requests(150)
    assert answers(two, requests) == answers(one, requests)
    about = two.about()
    assert (about["engine"], about["device"], about["replicas"]) == ("hf", "cpu", "2")


def test_the_readings_of_one_engine_in_order(one: Any, two: Any) -> None:
    requests = mixed_requests(150, seed=4)
    spans = [(r, 0, len(r.prompt_ids) + len(r.prefill_ids)) for r in requests]
    for found, expected in zip(two.activity(iter(spans)), one.activity(iter(spans)), strict=True):
        np.testing.assert_array_equal(found.maximum, expected.maximum)
        np.testing.assert_array_equal(found.total, expected.total)
    for found, expected in zip(two.readings(requests, [1, 5]), one.readings(requests, [1, 5]), strict=True):
        np.testing.assert_array_equal(found, expected)
    request = requests[0]
    np.testing.assert_array_equal(
        two.read(request.prompt_ids, [3], request.interventions),
        one.read(request.prompt_ids, [3], request.interventions),
    )


def test_the_divergences_of_one_engine(one: Any, two: Any) -> None:
    sets = [(Add(direction(k), boost, 1),) for k in range(3) for boost in (1.0, 8.0)]
    texts = [(Request(f"{k}", (9, 10 + k), prefill_ids=(11, 12, 13 + k)), sets[k % 3 :]) for k in range(9)]
    for found, expected in zip(two.divergences(texts), one.divergences(texts), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert expected[:, 1].max() > 0.01


def test_texts_are_drawn_as_they_are_needed(two: Any) -> None:
    drawn = 0

    def texts() -> Any:
        nonlocal drawn
        for k in range(1000):
            drawn += 1
            yield Request(f"{k}", (9, 10, 11)), 0, 3

    running = two.activity(texts())
    next(running)
    assert drawn < 300
    running.close()
    assert len(answers(two, mixed_requests(4))) == 4


def test_a_call_inside_of_another(one: Any, two: Any) -> None:
    requests, others = mixed_requests(80, seed=1), mixed_requests(20, seed=2)
    running = two.generate(requests)
    first = next(running)
    assert answers(two, others) == answers(one, others)
    rest = list(running)
    assert {r.id: r for r in [first, *rest]} == answers(one, requests)


def test_a_stop_reaches_what_replicas_have_in_hand(one: Any, two: Any) -> None:
    requests = mixed_requests(600)  # over 400 in hand at first, 16 in flight in each
    found = []
    with stop.listening(lambda: None), stop.finishing():
        for response in two.generate(requests):
            found.append(response)
            if len(found) == 10:
                os.kill(os.getpid(), signal.SIGINT)
    assert 10 <= len(found) < 150
    some = mixed_requests(40)
    assert answers(two, some) == answers(one, some)


@pytest.mark.slow  # a replica takes seconds to start; test_replicas_study kills one by default
@pytest.mark.parametrize("moment", [0, 1, 20, 60])
def test_a_killed_replica_is_made_up_for(one: Any, two: Any, moment: int) -> None:
    requests = mixed_requests(120, seed=10 + moment)
    victim = processes(two)[moment % 2]
    found = []
    if moment == 0:
        os.kill(victim, signal.SIGKILL)
    for response in two.generate(requests):
        found.append(response)
        if len(found) == moment:
            os.kill(victim, signal.SIGKILL)
    assert len(found) == 120
    assert {r.id: r for r in found} == answers(one, requests)
    assert victim not in processes(two)
    assert int(two.about()["replicas lost"]) >= 1


@pytest.mark.slow
def test_a_replica_killed_while_it_reads(one: Any, two: Any) -> None:
    spans = [(Request(f"{k}", (9, 10, 11 + k % 80)), 0, 3) for k in range(400)]
    found = []
    for activity in two.activity(iter(spans)):
        found.append(activity)
        if len(found) == 40:
            os.kill(processes(two)[0], signal.SIGKILL)
    assert len(found) == 400
    for mine, expected in zip(found, one.activity(iter(spans)), strict=True):
        np.testing.assert_array_equal(mine.maximum, expected.maximum)


def test_a_replicas_error_is_told_with_its_text(subject: Any, two: Any) -> None:
    huge = Add(direction(1), 3e38, 1)
    broken = Request("broken", (9, 40, 50), (huge, huge), Sampling(0, max_new_tokens=4))
    with pytest.raises(SteeringError, match=r"not finite in request broken at layer 1, boost 3e\+38"):
        list(two.generate([*mixed_requests(4), broken]))
    assert len(answers(two, mixed_requests(4))) == 4


def test_what_cannot_run_is_refused_before_anything_starts(subject: Any) -> None:
    engine = make_engine(subject, TWO)
    with pytest.raises(UserError, match="a layer lies in 0"):
        engine.generate([Request("x", (9,), (Add(direction(1), 1.0, 9),), Sampling(0, max_new_tokens=4))])
    assert engine.about() == {}


def test_what_the_machine_does_not_have(subject: Any) -> None:
    settings = TWO.model_copy(update={"gpus_per_replica": 64.0})
    with pytest.raises(UserError, match=r"the GPUs that its replicas need\. Got \d+ for 2 replicas of 64"):
        list(make_engine(subject, settings).generate(mixed_requests(1)))


def test_replicas_find_the_files_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "sae", "adapter"):
        (tmp_path / name).mkdir()
    spec = SubjectSpec(model="model", sae=SaeSpec(path="./sae"), adapter="adapter", steer_layer=1)
    whole = with_whole_paths(spec)
    assert (whole.model, whole.adapter) == (str(tmp_path / "model"), str(tmp_path / "adapter"))
    assert whole.sae is not None
    assert whole.sae.path == str(tmp_path / "sae")
    hub = SubjectSpec(model="google/gemma-2-2b-it", steer_layer=1)
    assert with_whole_paths(hub) == hub
    organism = published_subject("organism").spec
    assert with_whole_paths(organism).model_copy(update={"labels": organism.labels, "lexicon": organism.lexicon}) == (
        organism
    )
