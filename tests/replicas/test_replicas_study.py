"""A study by two replicas, one of which is killed in the middle of its work."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from study_folders import contents, make_study, run, settings

from esr.analysis.metrics import summarise
from esr.studies.config import read_config
from esr.studies.progress import Silent
from esr.studies.runner import run_study
from esr.studies.study import Study

pytest.importorskip("ray")


class Killer(Silent):
    """Kills a replica once a number of trials is done."""

    def __init__(self, after: int) -> None:
        self.left, self.victim, self.stage = after, 0, ""

    def start(self, stage: str, total: int) -> None:
        """Note where we are."""
        self.stage = stage

    def advance(self, responses: int, tokens: int, unscored: int, *more: Any, **named: Any) -> None:
        """Count down."""
        if self.stage != "trials" or self.victim or tokens == 0:
            return
        self.left -= responses
        if self.left <= 0 and (busy := busy_replica()):  # if none is, at the next trial
            self.victim = busy
            os.kill(self.victim, signal.SIGKILL)


def busy_replica() -> int | None:
    """The process of a replica that is at work, if any is."""
    import psutil

    named = [(p.pid, " ".join(p.info["cmdline"] or ())) for p in psutil.process_iter(["cmdline"])]  # None: gone by now
    return next((pid for pid, name in named if name.startswith("ray::Replica.generate")), None)


def test_a_replica_killed_in_mid_batch_leaves_no_trace_in_the_study(
    tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    values = settings(tiny_model_folder("llama"), tiny_sae_folder("standard"), prompts={"per_direction": 60})
    make_study(tmp_path / "whole", values)
    make_study(tmp_path / "killed", {**values, "engine": {"batch_size": 16, "replicas": 2}})
    run(tmp_path / "whole")
    killer = Killer(after=10)
    config = read_config(tmp_path / "killed")
    run_study(tmp_path / "killed", config, config.experiments, killer)
    assert killer.victim
    assert "A replica was lost, number 1 of this run" in caplog.text
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    whole, killed = Study.open(tmp_path / "whole"), Study.open(tmp_path / "killed")
    assert summarise(killed.trials).to_csv() == summarise(whole.trials).to_csv()
    assert killed.stages["responses"].sum() == whole.stages["responses"].sum(), "a response was stored twice"
    assert killed.provenance["replicas"] == "2"
    assert killed.provenance["device"] == whole.provenance["device"] == "cpu"
