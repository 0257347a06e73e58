"""The memory that `esr check` speaks of is what the engine of the settings will take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from organism_studies import make_organism_study

from esr.steering.engine import Request, Sampling
from esr.steering.memory import fitting_rows
from esr.studies.config import StudyConfig, read_config
from esr.studies.memory import Need, memory_need
from esr.subjects.loading import load_config, load_subject

PROMPT = 17


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    make_organism_study(tmp_path, ["incidence"])
    return read_config(tmp_path)


def needed(config: StudyConfig, device: str = "cpu", **engine: Any) -> Need:
    subject = config.subject.model_copy(update={"device": device})
    update = {"subject": subject, "engine": config.engine.model_copy(update={"batch_size": None, **engine})}
    return memory_need(config.model_copy(update=update), load_config(subject), PROMPT, 0)


def test_rows_are_those_the_engine_takes(config: StudyConfig) -> None:
    found = needed(config)
    subject = load_subject(config.subject.model_copy(update={"device": "cpu"}))
    longest = Request("", (0,) * PROMPT, sampling=Sampling(max_new_tokens=config.sampling.max_new_tokens))
    assert found.rows == fitting_rows(subject, [longest])
    assert found.weights == sum(p.numel() * 4 for p in subject.model.parameters())
    assert needed(config, batch_size=7).rows == 7


def test_replicas_on_a_machine_without_gpus_share_its_memory(config: StudyConfig) -> None:
    four = needed(config, replicas=4)
    assert (four.copies, four.rows, four.where) == (4, 320, "this machine")
    assert four.loaded == 4 * needed(config).loaded
    assert "320 responses at once" in str(four)
    assert str(four).endswith("each for 4 replicas")
    elsewhere = needed(config, replicas=4, ray_address="auto")
    assert (elsewhere.copies, elsewhere.free, elsewhere.where) == (1, None, "the machine of each replica")


@pytest.mark.parametrize(
    ("engine", "copies", "gigabytes", "rows"),
    [
        ({}, 1, 2, 512),
        ({"replicas": 4}, 1, 2, 512),
        ({"replicas": 4, "gpus_per_replica": 0.5}, 2, 2, 512),
        ({"replicas": 4, "gpus_per_replica": 0}, 4, 2, 315),
        ({"backend": "vllm"}, 1, 2, 64),
    ],
)
def test_on_gpus(
    config: StudyConfig, monkeypatch: pytest.MonkeyPatch, engine: Any, copies: int, gigabytes: int, rows: int
) -> None:
    for name, value in {"is_available": True, "device_count": 4, "memory_reserved": 0, "memory_allocated": 0}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (2 * 10**9, 2 * 10**9))
    found = needed(config, "auto", **engine)
    assert (found.copies, found.free, found.rows) == (copies, gigabytes * 10**9, rows)
