"""The commands about judges, over a server on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "judging"))
from fault_server import FaultServer


def esr(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "esr.cli", *args], capture_output=True, text=True)


def test_judge_check_shows_the_model_beside_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT_API_KEY", "sk-secret-12345")
    with FaultServer(lambda mark, call: "good", key="sk-secret-12345") as server:
        out = esr("judge-check", "--judge", "openai-api/fault/judge", "--base-url", server.url)
    assert out.returncode == 0, out.stderr
    assert "judge rule" in out.stdout
    assert "judge openai-api/fault/judge" in out.stdout
    assert "input tokens" in out.stdout
    assert "sk-secret" not in out.stdout + out.stderr


def test_judge_check_as_json_has_the_rules_figures() -> None:
    (report,) = json.loads(esr("judge-check", "--json").stdout)
    explicit = next(g for g in report["groups"] if g["group"] == "English, explicit rows")
    for rate in (explicit["explicit_recall"], explicit["explicit_precision"]):
        assert rate["hits"] / rate["n"] >= 0.9
        assert rate["n"] >= 50


def test_a_set_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text("{]")
    out = esr("judge-check", "--set", str(tmp_path / "set.jsonl"))
    assert out.returncode == 2
    assert "set.jsonl" in out.stderr
    assert "Traceback" not in out.stderr
