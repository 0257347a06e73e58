"""A user's mistakes: each its own message, exit code 2, no traceback, before any generation."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esr import cli


@pytest.fixture
def esr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``esr("run", "folder")`` runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["esr", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def good(tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any) -> dict[str, str]:
    """Arguments of ``esr new`` that work."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("How do i bake bread?\nExplain how to build a chair.\nHow do you clean the window?\n")
    return {
        "--model": str(tiny_model_folder("gemma2")),
        "--sae": str(tiny_sae_folder("jumprelu", d_sae=256)),
        "--layer": "1",
        "--upper": "20",
        "--count": "2",
        "--prompts": str(prompts),
        "--per-direction": "2",
        "--max-new-tokens": "8",
    }


def flat(arguments: dict[str, str]) -> list[str]:
    return [part for pair in arguments.items() for part in pair]


def wrong_width(tiny_sae_folder: Any) -> dict[str, str]:
    return {"--sae": str(tiny_sae_folder("standard", d_in=32))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "/nowhere/model"}, "a folder that exists"),
        ({"--model": "no-such-owner/no-such-model"}, "exists on the Hugging Face hub"),
        ({"--layer": "4"}, "steer_layer lies in 0..3"),
        ({"--sae": "no-release:no-id"}, "no-release"),
        ({"--sae": "/nowhere/sae"}, "/nowhere/sae"),
    ],
)
def test_subject_mistakes(esr: Any, good: Any, tmp_path: Path, change: dict[str, str], message: str) -> None:
    study = tmp_path / "study"
    code, _, error = esr("new", study, *flat(good | change))
    if code == 0:
        code, _, error = esr("run", study)
    assert code == 2
    assert message in error
    assert_nothing_generated(study)


def assert_nothing_generated(study: Path) -> None:
    if (study / "study.sqlite").exists():
        connection = sqlite3.connect(study / "study.sqlite")
        assert connection.execute("SELECT count(*) FROM responses").fetchone() == (0,)
        connection.close()


def test_sae_of_another_width(esr: Any, good: Any, tmp_path: Path, tiny_sae_folder: Any) -> None:
    esr("new", tmp_path / "study", *flat(good | wrong_width(tiny_sae_folder)))
    code, _, error = esr("run", tmp_path / "study")
    assert code == 2
    assert "as wide as the residual stream, 64" in error
    assert "width 32" in error


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "prompt"), (b"# only a comment\n", "prompt"), (b"\x00\xff\xfe\x01binary", "text"), (b"one\none\n", "one")],
)
def test_prompt_file_mistakes(esr: Any, good: Any, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    esr("new", tmp_path / "study", *flat(good))
    code, _, error = esr("run", tmp_path / "study")
    assert code == 2
    assert message in error
    assert_nothing_generated(tmp_path / "study")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "per_direction = 2",
            "per_direction = -2",
            "prompts.per_direction: is at least 1",
        ),
        ("format = 1", "format = 2", "this version of esr reads study format 1. Got 2"),
        ("count = 2", "count = 2\nlatents = [256]", "a latent of this SAE lies in 0..255. Got 256"),
        ("count = 2", "cuont = 2", "directions.cuont: there is no such setting; nearest: count"),
        ("upper = 20.0", "upper = -1.0", "0 <= lower < upper"),
        ('"prompts.txt"', '"missing.txt"', "missing.txt"),
        ("[judge]", "[judge", "study.toml is valid TOML"),
        ('name = "rule"', 'name = "no-provider/no-model"', "no-provider"),
        ('experiments = ["no-steering"', 'experiments = ["no-such"', "an experiment has a known key. Got no-such"),
        ("max_new_tokens = 8", "max_new_tokens = 8000", "context of 128 tokens"),
    ],
)
def test_settings_mistakes(esr: Any, good: Any, tmp_path: Path, old: str, new: str, message: str) -> None:
    study = tmp_path / "study"
    esr("new", study, *flat(good))
    toml = (study / "study.toml").read_text().replace(str(tmp_path / "prompts.txt"), "prompts.txt")
    (study / "prompts.txt").write_bytes((tmp_path / "prompts.txt").read_bytes())
    assert old in toml
    (study / "study.toml").write_text(toml.replace(old, new))
    code, _, error = esr("run", study)
    assert code == 2
    assert message in error
    assert_nothing_generated(study)


def test_folder_mistakes(esr: Any, good: Any, tmp_path: Path) -> None:
    assert "a folder with a study.toml" in esr("run", tmp_path / "nothing")[2]
    assert esr("new", tmp_path / "s", *flat(good))[0] == 0
    code, out, _ = esr("status", tmp_path / "s")  # nothing stored is no mistake
    assert code == 0
    assert out == f"Nothing is stored yet. Run it: esr run {tmp_path / 's'}\n"
    assert "a folder without one" in esr("new", tmp_path / "s", *flat(good))[2]
    (tmp_path / "file").write_text("")
    assert esr("new", tmp_path / "file" / "s", *flat(good))[0] == 2
    assert "--preset, or --model and --layer" in esr("new", tmp_path / "t")[2]
    assert not (tmp_path / "t").exists()


def test_a_study_file_that_cannot_be_opened(esr: Any, good: Any, tmp_path: Path) -> None:
    new_study = tmp_path / "study"
    esr("new", new_study, *[part for pair in good.items() for part in pair])
    (new_study / "study.sqlite").mkdir()
    for command in ("status", "run"):
        code, _, err = esr(command, new_study)
        assert code == 2
        assert err.startswith("Error: the ")


def test_unwritable_folder(esr: Any, good: Any) -> None:
    code, _, error = esr("new", "/proc/study", *flat(good))  # not even root writes there
    assert code == 2
    assert "the study's folder can be made" in error


def test_unknown_preset_and_experiment(esr: Any, tmp_path: Path) -> None:
    code, _, error = esr("new", tmp_path / "s", "--preset", "llama-9000")
    assert code == 2
    assert "names a known subject. Got llama-9000. Known: llama-3.3-70b/paper" in error


def test_missing_extra(esr: Any, good: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    study = tmp_path / "study"
    esr("new", study, *flat(good))
    toml = (study / "study.toml").read_text()
    (study / "study.toml").write_text(toml.replace("\nsteer_layer", '\nadapter = "some/adapter"\nsteer_layer'))
    code, _, error = esr("run", study)
    assert code == 2
    assert ".[train]" in error


def test_public_path_on_a_random_gemma(esr: Any, good: Any, tmp_path: Path) -> None:
    """A stranger's model and SAE: new, run, status, report, nothing else."""
    study = tmp_path / "my <b>study"
    assert (
        esr("new", study, *flat(good | {"--target": "5", "--max-new-tokens": "40", "--count": "6", "--upper": "60"}))[0]
        == 0
    )
    code, out, error = esr("run", study)
    assert code == 0, error
    assert "incidence" in out
    counts = json.loads(esr("status", study, "--json")[1])["progress"]
    assert counts["incidence"]["judged"] == counts["no-steering"]["judged"] > 0
    code, out, _ = esr("report", study)
    assert code == 0
    html = (study / "report.html").read_text()
    assert "<b>study" not in html
    assert "&lt;b&gt;study" in html
