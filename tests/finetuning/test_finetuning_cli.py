"""``esr fine-tune`` from the command line, and what it must not load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("peft")

from tuning_studies import TUNING, new_study

SCRIPT = "from esr.cli import finetune; from esr.cli.main import main; main()"


def fine_tune(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT, "fine-tune", *args], capture_output=True, text=True)


def test_from_data_to_the_table(
    tmp_path: Path, tiny_model_folder: Callable[..., Path], tiny_sae_folder: Callable[..., Path]
) -> None:
    folder = new_study(tmp_path / "study", tiny_model_folder("llama"), tiny_sae_folder("standard"))
    (folder / "fine-tuning").mkdir()
    held = {k: v for k, v in TUNING.items() if k not in ("shares", "examples")} | {"examples": 1900}
    (folder / "fine-tuning" / "settings.json").write_text(json.dumps(held))
    out = fine_tune(str(folder), "--shares", "80", "--examples", "10")
    assert out.returncode == 0, out.stderr
    assert "training 80 %" in out.stdout
    assert "Fine-tuned for self-correction" in out.stdout
    assert (folder / "fine-tuning" / "dose-response.png").read_bytes().startswith(b"\x89PNG")
    again = fine_tune(str(folder), "--shares", "80", "--json")
    rows = json.loads(again.stdout[again.stdout.index("[") :])
    assert [row["share"] for row in rows] == [0.0, 0.8]
    assert (folder / "fine-tuning" / "dose-response.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--shares", "ten"], "whole per cents"),
        (["--shares", "10,200"], "from 0 to 100"),
        (["--from", "nowhere"], "source"),
        (["--from", "study", "--data", "x.jsonl"], "one place"),
    ],
)
def test_mistakes_are_explained(
    tmp_path: Path, tiny_model_folder: Callable[..., Path], tiny_sae_folder: Callable[..., Path], args: list[str],
    message: str,
) -> None:  # fmt: skip
    folder = new_study(tmp_path / "study", tiny_model_folder("llama"), tiny_sae_folder("standard"))
    out = fine_tune(str(folder), *args)
    assert out.returncode == 2
    assert message in out.stderr
    assert "Traceback" not in out.stderr


def test_the_settings_are_light_to_import() -> None:
    code = "import sys, esr.cli.finetune, esr.finetuning.settings; sys.exit(any(m in sys.modules for m in {0!r}))"
    heavy = ("torch", "transformers", "peft", "pandas", "scipy", "matplotlib", "inspect_ai")
    assert subprocess.run([sys.executable, "-c", code.format(heavy)], check=False).returncode == 0
