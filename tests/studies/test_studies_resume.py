"""Killed, interrupted, short of disk, or run twice at once: what is stored is kept and the tables come out the same."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from study_folders import contents, count_rows, make_study, run, run_killed, settings

from esr.analysis.metrics import summarise
from esr.errors import UserError
from esr.studies.asking import Asker
from esr.studies.conditions import Condition
from esr.studies.grading import LEFT_OUT
from esr.studies.measure import Task
from esr.studies.store import Store
from esr.studies.study import Study

KILLS = 20


@pytest.fixture
def values(tiny_model_folder: Any, tiny_sae_folder: Any) -> dict[str, Any]:
    return settings(tiny_model_folder("llama"), tiny_sae_folder("standard"), prompts={"per_direction": 10})


def test_killed_at_20_random_moments_gives_the_same_study(tmp_path: Path, values: dict[str, Any]) -> None:
    make_study(tmp_path / "whole", values)
    make_study(tmp_path / "killed", {**values, "engine": {"batch_size": 7}})  # other batches, same tokens
    run(tmp_path / "whole")
    total = count_rows(tmp_path / "whole")

    run_killed(tmp_path / "killed", KILLS, total)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")

    whole, killed = Study.open(tmp_path / "whole"), Study.open(tmp_path / "killed")
    assert summarise(killed.trials).to_csv() == summarise(whole.trials).to_csv()
    assert killed.calibration.equals(whole.calibration)
    # a response under way when the process died is generated again; no stored one is
    assert killed.stages["responses"].sum() <= len(contents(tmp_path / "killed")["responses"])


def test_a_second_run_generates_nothing(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(tmp_path, values)
    run(tmp_path)
    before = contents(tmp_path)
    from esr.steering.hf import HFEngine

    def refuse(self: HFEngine, requests: Any) -> Any:
        assert not requests, "nothing is missing"
        return iter(())

    monkeypatch.setattr(HFEngine, "generate", refuse)
    run(tmp_path)
    assert contents(tmp_path) == before


def test_only_what_is_missing_is_built_and_done_again(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of a million trials need not build a million requests to go on."""
    make_study(tmp_path, values)
    run(tmp_path)
    before, study = contents(tmp_path), Study.open(tmp_path).trials
    lost, unjudged = study["response"].iloc[[3, 30]]
    with sqlite3.connect(tmp_path / "study.sqlite") as db:
        db.execute("DELETE FROM responses WHERE key = ?", (lost,))
        db.execute("DELETE FROM grades WHERE response IN (?, ?)", (lost, unjudged))
    built: list[str] = []
    task = Asker.task

    def counting(self: Asker, purpose: str, condition: Condition, *args: Any, **options: Any) -> Task:
        built.extend([condition.name] * (purpose == "trial" and condition.name != "check"))
        return task(self, purpose, condition, *args, **options)

    monkeypatch.setattr(Asker, "task", counting)
    run(tmp_path)
    assert sorted(built) == sorted(study[study["response"].isin([lost, unjudged])]["condition"])
    assert contents(tmp_path) == before

    with sqlite3.connect(tmp_path / "study.sqlite") as db:  # as if the condition had been another one then
        db.execute("UPDATE meta SET value = 'another' WHERE key = 'condition incidence'")
    built.clear()
    run(tmp_path)
    assert built == ["incidence"] * (study["condition"] == "incidence").sum()
    assert contents(tmp_path) == before


def test_a_verdict_that_was_left_out_is_no_verdict(tmp_path: Path, values: dict[str, Any]) -> None:
    make_study(tmp_path, values)
    run(tmp_path)
    study = Study.open(tmp_path)
    before = study.trials
    first = before.loc[0]
    with sqlite3.connect(tmp_path / "study.sqlite") as db:
        mark = json.dumps(LEFT_OUT.to_json())
        db.execute("UPDATE grades SET judgement = ? WHERE response = ?", (mark, first["response"]))
    with Store.writing(tmp_path) as store:
        cells = store.measured_cells(first["condition"], study.judge_key)
    assert (first["direction"], first["prompt_index"], first["seed"]) not in cells
    assert len(cells) == (before["condition"] == first["condition"]).sum() - 1
    assert first["trial"] not in set(study.trials["trial"])
    assert study.judges["judged"].tolist() == [before["response"].nunique() - 1]


def test_a_second_process_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    make_study(tmp_path, values)
    with Store.writing(tmp_path), pytest.raises(UserError, match="one process writes to a study at a time"):
        run(tmp_path)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, values: dict[str, Any]) -> None:
    make_study(tmp_path, {**values, "prompts": {"file": "prompts.txt", "per_direction": 200}})
    child = subprocess.Popen(
        [sys.executable, "-m", "esr.cli", "run", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while count_rows(tmp_path) < 150:
        time.sleep(0.05)
        assert child.poll() is None, child.communicate()
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Everything finished is stored. To go on: esr run" in error
    assert "Traceback" not in error
    assert count_rows(tmp_path) >= 150


def test_a_full_disk_stops_cleanly_and_keeps_what_is_stored(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(tmp_path / "small", values)
    make_study(tmp_path / "whole", values)
    connect = sqlite3.connect

    def scarce(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA max_page_count = 30")  # SQLite's own error for a full disk, without filling one
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", scarce)
        with pytest.raises(UserError, match=r"the disk has room.*full.*what was stored is intact"):
            run(tmp_path / "small")
    stored = contents(tmp_path / "small")
    assert stored["responses"]
    run(tmp_path / "small")
    run(tmp_path / "whole")
    assert contents(tmp_path / "small") == contents(tmp_path / "whole")
    assert set(stored["responses"]) <= set(contents(tmp_path / "small")["responses"])


def test_changed_settings_are_shown(tmp_path: Path, values: dict[str, Any]) -> None:
    make_study(tmp_path, values)
    run(tmp_path)
    toml = (tmp_path / "study.toml").read_text()
    (tmp_path / "study.toml").write_text(toml.replace("temperature = 0.9", "temperature = 0.5"))
    with pytest.raises(UserError, match=r"sampling.temperature: 0.9 -> 0.5"):
        run(tmp_path)
    (tmp_path / "study.toml").write_text(toml.replace("batch_size = 32", "batch_size = 8"))
    run(tmp_path)  # how it is computed may change
    (tmp_path / "prompts.txt").write_text("How do i grow a garden?\n")
    with pytest.raises(UserError, match="the prompts of a study that has results do not change"):
        run(tmp_path)


def test_not_a_study_file_is_a_clear_error(tmp_path: Path, values: dict[str, Any]) -> None:
    make_study(tmp_path, values)
    (tmp_path / "study.sqlite").write_bytes(b"this is no database " * 100)
    with pytest.raises(UserError, match="an intact study file"):
        run(tmp_path)
