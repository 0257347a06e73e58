"""Ctrl-C, as real signals to real runs: once finishes what is in flight, twice stops at once, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "judging"))
sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from fault_server import FaultServer
from study_folders import contents, count_rows, make_study, run, settings

from esr.steering.stopping import GRACE
from esr.studies.store import Store

BATCH = 8


@pytest.fixture
def study(tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any) -> Path:
    """A study of some 300 responses, 8 at a time."""
    values = settings(
        tiny_model_folder("llama"),
        tiny_sae_folder("standard"),
        engine={"batch_size": BATCH},
        sampling={"max_new_tokens": 32},
    )
    make_study(tmp_path / "study", values)
    return tmp_path / "study"


@contextmanager
def running(folder: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """``esr run`` in a process of its own."""
    command = [sys.executable, "-m", "esr.cli", "run", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=os.environ | env) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def wait_for(folder: Path, rows: int, process: subprocess.Popen[str], *tables: str) -> None:
    until = time.monotonic() + 600  # a busy machine takes minutes to load
    while (count_rows(folder, tables) if tables else count_rows(folder)) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def responses(folder: Path) -> int:
    with Store.reading(folder) as store:
        return int(store._db.execute("SELECT count(*) FROM responses").fetchone()[0])


def test_once_finishes_what_is_in_flight_and_the_same_command_goes_on(study: Path, tmp_path: Path) -> None:
    with running(study) as process:
        wait_for(study, 4, process, "trials")  # between two steps of the calibration nothing is in flight
        before, stored = responses(study), contents(study)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=GRACE + 60)
    assert process.returncode == 130
    assert f"Stopping: what is in flight is finished, for {GRACE:.0f} s at most" in error
    assert f"To go on: esr run {study}" in error
    assert len(error.splitlines()) == 2  # and no bar of a library
    assert "Traceback" not in out + error
    after = contents(study)
    for table in ("trials", "responses", "grades"):
        assert set(map(tuple, stored[table])) <= set(map(tuple, after[table]))
    assert before <= responses(study) <= before + 3 * BATCH  # what was in flight, and what ended meanwhile
    whole = tmp_path / "whole"
    whole.mkdir()
    for name in ("study.toml", "prompts.txt"):
        (whole / name).write_bytes((study / name).read_bytes())
    run(study)
    run(whole)
    assert contents(study) == contents(whole)


def judged(study: Path, server: FaultServer) -> None:
    """Have the study judged over the server."""
    text = (study / "study.toml").read_text()
    text = text.replace('name = "rule"', f'name = "openai-api/fault/judge"\nbase_url = "{server.url}"')
    (study / "study.toml").write_text(text)
    (study / "prompts.txt").write_text("How do i bake bread? exhibit-0001\nExplain the chair. exhibit-0002\n")


def test_twice_stops_at_once_though_the_judge_stalls(study: Path) -> None:
    with FaultServer(lambda *_: "stall", stall=2 * GRACE) as server:
        judged(study, server)
        with running(study, FAULT_API_KEY="sk-x") as process:
            wait_for(study, 4, process)
            before = responses(study)
            process.send_signal(signal.SIGINT)
            time.sleep(1)
            assert process.poll() is None  # the calls in flight are waited for
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=GRACE)
    assert process.returncode == 130
    assert time.monotonic() - began < GRACE / 3  # the stall would take all of it
    assert "Traceback" not in out + error
    assert responses(study) >= before > 0


@pytest.mark.slow
def test_once_waits_for_the_verdicts_under_way(study: Path) -> None:
    def slowly(*_: object) -> str:
        time.sleep(1.5)
        return "good"

    with FaultServer(slowly) as server:
        judged(study, server)
        with running(study, FAULT_API_KEY="sk-x") as process:
            wait_for(study, 6, process)
            while not (under_way := server.busy):
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=GRACE + 60)
        answered = sum(server.served.values())
    assert process.returncode == 130, error
    assert under_way > 0
    assert len(contents(study)["grades"]) == answered
