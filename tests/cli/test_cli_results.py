"""What `esr run` and `esr status` show of a study with several experiments."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esr import cli
from esr.analysis.metrics import summarise
from esr.studies.study import Study

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import study_folders


@pytest.fixture
def esr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``esr("status", folder)`` runs the command line in this process and returns what it printed."""

    def run(*args: object) -> str:
        monkeypatch.setattr(sys, "argv", ["esr", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert not stop.value.code, err
        assert "--json" in args or max(map(len, out.splitlines())) <= 100
        return out

    return run


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Any, tiny_sae_folder: Any) -> Path:
    """A small study of a random model with incidence, no-steering, a sweep and prompt-only."""
    folder = tmp_path_factory.mktemp("results") / "tiny"
    more = {
        "experiments": ["no-steering", "boost-sweep", "prompt-only"],
        "experiment": {"boost-sweep": {"by": "factor", "factors": [0.5, 2.0]}},
    }
    study_folders.make_study(folder, study_folders.settings(tiny_model_folder(), tiny_sae_folder()) | more)
    study_folders.run(folder)
    return folder


def test_status_shows_every_condition_once(esr: Any, study: Path) -> None:
    out = esr("status", study)
    assert "5 conditions: " in out
    assert out.count("trials judged") == 1  # none is unfinished
    tables = out[out.index("Resistance to steering") :]
    for name in ("incidence", "no-steering", "boost x0.5", "boost x2", "prompt-only"):
        assert sum(line.startswith(f" {name}  ") for line in tables.splitlines()) == 1, name
    assert "boost-sweep: How does resistance depend on the strength of steering?" in out
    assert "no-steering − incidence, ESR rate: " in out


def test_status_and_run_say_how_calibration_went(esr: Any, study: Path) -> None:
    shown = json.loads(esr("status", study, "--json"))["calibration"]
    found = Study.open(study).calibration
    calibrated = found[found["status"].eq("calibrated")]
    assert (shown["method"], shown["calibrated"], shown["directions"]) == ("pooled", len(calibrated), len(found))
    assert shown["responses_per_direction"] == pytest.approx(found["generations"].mean())
    assert shown["median_relative_width"] == pytest.approx(
        ((calibrated["high"] - calibrated["low"]) / calibrated["threshold"]).median()
    )
    for command in (("status", study), ("run", study, "--experiment", "prompt-only")):
        said = " ".join(esr(*command).split())
        assert f"Calibration (pooled): {len(calibrated)} of {len(found)} directions; median 95 % interval " in said
        assert f"(target {shown['target']:g})" in said


def test_run_shows_what_was_asked_for(esr: Any, study: Path) -> None:
    out = esr("run", study, "--experiment", "prompt-only")
    assert "prompt-only: Does steering" in out
    assert " incidence " in out  # the headline, always
    assert "boost-sweep" not in out
    assert "boost x2" not in out


def test_json_has_every_condition_and_the_comparisons(esr: Any, study: Path) -> None:
    shown = json.loads(esr("status", study, "--json"))
    opened = Study.open(study)
    summary = summarise(opened.trials, seed=opened.config.seed)
    assert [row["condition"] for row in shown["summary"]] == list(summary["condition"])
    assert shown["summary"][0]["mean_first_score"] == pytest.approx(summary["mean_first_score"][0])
    assert set(shown["comparisons"]) == {"incidence", "no-steering", "boost-sweep", "prompt-only"}
    assert shown["comparisons"]["incidence"] == []
    expected = opened.comparisons("boost-sweep", opened.trials)
    found = shown["comparisons"]["boost-sweep"]
    assert [row["treatment"] for row in found] == list(expected["treatment"])
    assert [row["p_holm"] or np.nan for row in found] == pytest.approx(list(expected["p_holm"]), nan_ok=True)


def test_the_figure_of_an_experiment_comes_from_the_study(study: Path) -> None:
    assert len(Study.open(study).figure("boost-sweep").axes) == 3


def test_report_writes_figures_beside_the_page_and_refuses_a_format_before_any_work(
    esr: Any, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures = tmp_path / "page.html", tmp_path / "figures"
    out = esr("report", study, "--output", page, "--figures", figures, "--format", "svg, PDF")
    assert page.stat().st_size > 100_000
    found = {path.name for path in figures.iterdir()}
    drawn = {name.removesuffix(".svg") for name in found if name.endswith(".svg")}
    assert {"rates", "first-last-scores", "boost-sweep", "prompt-only", "thresholds", "direction-checks"} <= drawn
    assert {f"{name}.{end}" for name in drawn for end in ("svg", "pdf", "csv")} <= found
    assert f"{2 * len(drawn)} files, and their numbers as CSV." in out
    monkeypatch.setattr(sys, "argv", ["esr", "report", str(study), "--output", str(tmp_path / "no"), "--format", "gif"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "a figure's format is one of png, svg, pdf. Got 'gif'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "no").exists()
