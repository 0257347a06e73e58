"""What a plan says of power: from the study's own pilot where it has one, else from what was published."""

from __future__ import annotations

from pathlib import Path

import pytest

from esr.analysis.power import directions_needed, pilot
from esr.errors import UserError
from esr.reporting.power import PUBLISHED, power_lines
from esr.studies.config import read_config
from esr.studies.study import Study


def test_the_pilot_is_the_studys_own_first_condition_steered_like_its_control(organism_study: Path) -> None:
    lines = power_lines(organism_study, read_config(organism_study), change=-0.2)
    trials = Study.open(organism_study).trials
    found = pilot(trials, "meta monitor 1", "incidence")
    needed = directions_needed(found.rate, -0.2, 3, found.icc, found.correlation)
    assert f"takes {needed} directions" in lines[1]
    assert "meta monitor 1 against incidence" in lines[2]


def test_without_a_pilot_the_published_rate_is_assumed_and_said(tmp_path: Path, organism_study: Path) -> None:
    (tmp_path / "study.toml").write_text((organism_study / "study.toml").read_text())
    lines = power_lines(tmp_path, read_config(tmp_path))
    assert f"{100 * PUBLISHED:.1f} %" in lines[0]
    assert "no trial of incidence is judged in this study" in lines[2]
    assert "assumed" in lines[2]


def test_the_rate_is_the_studys_own_and_stands_with_its_counts(organism_study: Path) -> None:
    config = read_config(organism_study)
    assert "Rate: this study's incidence, " in power_lines(organism_study, config)[2]
    assert "unscored" in power_lines(organism_study, config)[2]
    assert "as given by --rate" in power_lines(organism_study, config, rate=0.3)[2]
    with pytest.raises(UserError, match=r"ends at a rate from 0 to 1.*this study's incidence"):
        power_lines(organism_study, config, change=-0.99)


def test_an_impossible_rate_or_change_is_refused(organism_study: Path) -> None:
    config = read_config(organism_study)
    for rate, change in ((1.5, None), (0.1, -0.5), (0.1, 0.0)):
        with pytest.raises(UserError):
            power_lines(organism_study, config, rate, change)
