"""Killed at any point of any experiment and run again: the same tables, byte for byte, as uninterrupted."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from organism_studies import make_organism_study
from study_folders import contents, run_killed

from esr.analysis.metrics import summarise
from esr.studies.study import Study


def _readings(folder: Path) -> list[tuple[str, str, bytes]]:
    connection = sqlite3.connect(folder / "study.sqlite")
    try:
        return sorted(connection.execute("SELECT * FROM readings"))
    finally:
        connection.close()


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_anywhere_every_table_is_the_same(kills: int, organism_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    make_organism_study(folder, ["all"])
    whole = contents(organism_study)
    run_killed(folder, kills, total=len(whole["grades"]) + len(whole["responses"]))
    assert contents(folder) == whole
    assert _readings(folder) == _readings(organism_study)
    one, other = Study.open(folder), Study.open(organism_study)
    assert summarise(one.trials).to_csv() == summarise(other.trials).to_csv()
    for key in other.experiments:
        assert one.comparisons(key).to_csv() == other.comparisons(key).to_csv()
