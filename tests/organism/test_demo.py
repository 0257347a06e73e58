"""The demo's claims: a real study of the organism recovers what was planted, and the naive one nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

import esr
from esr.organism.demo import make_demo

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from study_folders import contents, count_rows, run, run_killed


def summary(folder: Path) -> pd.DataFrame:
    run(folder)
    return esr.summarise(esr.open(str(folder)).trials).set_index("condition")


def test_the_organism_resists_while_steered_and_only_then(tmp_path: Path) -> None:
    rows = summary(make_demo(tmp_path)["organism"])
    steered, plain = rows.loc["incidence"], rows.loc["no-steering"]
    assert steered["n_directions"] >= 40
    assert steered["n_trials"] == 5 * steered["n_directions"]
    assert steered["mean_first_score"] == pytest.approx(30, abs=12)  # thresholds are calibrated to 30
    assert plain["multi_attempt_rate"] < 0.02
    assert steered["multi_attempt_rate"] >= 0.20
    assert steered["esr_rate_low"] > 0.05


def test_the_naive_organism_never_restarts(tmp_path: Path) -> None:
    folder = make_demo(tmp_path)["organism-naive"]
    settings = (folder / "study.toml").read_text(encoding="utf-8")
    (folder / "study.toml").write_text(settings.replace("count = 48", "count = 20"), encoding="utf-8")
    rows = summary(folder)
    assert (rows["n_directions"] == 20).all()
    assert (rows["multi_attempt_rate"] < 0.01).all()
    assert rows.loc["boost x1", "mean_first_score"] == pytest.approx(30, abs=12)  # it is steered all the same
    assert rows.loc["no-steering", "mean_first_score"] > 90


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_killed_20_times_is_the_demo(tmp_path: Path) -> None:
    whole = make_demo(tmp_path / "whole")["organism"]
    killed = make_demo(tmp_path / "killed")["organism"]
    run(whole)
    run_killed(killed, 20, count_rows(whole))
    assert contents(killed) == contents(whole)
    table = [esr.summarise(esr.open(str(folder)).trials).to_csv() for folder in (whole, killed)]
    assert table[0] == table[1]
