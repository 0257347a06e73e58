"""Trials leave a study and come back with the same rates, from the command line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import esr.cli.exchange
from esr import cli
from esr.studies.study import Study

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import study_folders

assert esr.cli.exchange.app  # importing it registers its commands


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``run("export", ...)`` runs the command line in this process: (exit code, stdout, stderr)."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["esr", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(stop.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Any, tiny_sae_folder: Any) -> Path:
    """A small study of a random model, run."""
    folder = tmp_path_factory.mktemp("exchange") / "tiny"
    study_folders.make_study(folder, study_folders.settings(tiny_model_folder(), tiny_sae_folder()))
    study_folders.run(folder)
    return folder


def headline(printed: str) -> str:
    """The table of rates."""
    return printed[printed.index("Resistance to steering") : printed.index("Intervals: 95 %")]


def test_there_and_back(run: Any, study: Path, tmp_path: Path) -> None:
    code, said, error = run("export", study, "--to", "json", "--output", tmp_path / "out")
    assert code == 0, error
    assert said.splitlines() == [f"Wrote {tmp_path}/out/{name}.json" for name in ("incidence", "no-steering")]
    status = run("status", study)[1]
    code, said, error = run("import", tmp_path / "out", "--parquet", tmp_path / "back.parquet")
    assert code == 0, error
    assert headline(said) == headline(status)
    trials = Study.open(study).trials
    assert f"Trials: {len(trials)}, directions: {trials['direction'].nunique()}, files: 2." in said
    assert len(pd.read_parquet(tmp_path / "back.parquet")) == len(trials)


def test_defaults_lie_in_the_study(run: Any, study: Path) -> None:
    assert run("export", study, "--to", "json")[1].count(f"Wrote {study}/export/") == 2
    code, said, _ = run("export", study, "--to", "parquet")
    assert (code, said) == (0, f"Wrote {study}/trials.parquet\n")
    frame, trials = pd.read_parquet(study / "trials.parquet"), Study.open(study).trials
    assert frame["text"].tolist() == trials["text"].tolist()
    shutil.rmtree(study / "export")


def test_a_file_of_the_reference(run: Any, tmp_path: Path) -> None:
    attempts = [{"attempt_text": "Trout", "score": 5}, {"attempt_text": "gone", "score": 80}]
    trial = {"prompt": "p", "seed": 1, "threshold": 2.0, "response": "Trout \x1b[31m", "score": {"attempts": attempts}}
    failed = {"feature_index_in_sae": 2, "trials": [], "error": "\x1b]0;title\x07"}
    (tmp_path / "r.json").write_text(
        json.dumps({"results_by_feature": [{"feature_index_in_sae": 1, "trials": [trial, 3]}, failed]})
    )
    code, said, _ = run("import", tmp_path / "r.json", "--condition", "mi\x1b[31mne")
    assert code == 0
    assert "\x1b" not in said
    for note in (
        "Trials: 1, directions: 1, files: 1.",
        "Directions that hold an error instead of trials: 1.",
        "Entries left out, for they are no JSON objects: 1.",
        "Multi-attempt responses in which the attempts' texts were not found, so that only scores are known: 1.",
    ):
        assert note in said


def test_mistakes(run: Any, study: Path, tmp_path: Path) -> None:
    assert run("export", study, "--to", "csv")[0] == 2
    code, _, error = run("export", tmp_path, "--to", "json")
    assert code == 2
    assert "a folder with a study.toml" in error
    code, _, error = run("import", study / "study.toml")
    assert code == 2
    assert "a result file is JSON with results_by_feature. Got study.toml" in error
    code, _, error = run("export", study, "--to", "parquet", "--output", tmp_path / "no" / "t.parquet")
    assert code == 2
    assert "can be written" in error
