"""The organism's known truths are checked against what a study really holds, and fail where it says otherwise."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from organism_studies import make_organism_study, run_small

from esr.organism.truths import findings
from esr.studies.study import Study


@pytest.fixture(scope="module")
def study(organism_study: Path) -> Study:
    return Study.open(organism_study)


def test_every_experiment_with_a_truth_says_whether_it_recovers_it(study: Study) -> None:
    found = {f.experiment: f for f in findings(study, study.trials)}
    assert set(found) == {"no-steering", "meta-prompts", "otd-discovery", "otd-ablation", "random-ablation"}
    assert all(f.evidence for f in found.values())


def test_a_truth_with_directions_enough_is_recovered(tmp_path: Path) -> None:
    make_organism_study(tmp_path / "study", ["incidence", "no-steering"], count=16)
    run_small(tmp_path / "study")
    study = Study.open(tmp_path / "study")
    (found,) = findings(study, study.trials)
    assert found.experiment == "no-steering"
    assert found.recovered


def test_a_truth_the_trials_contradict_is_not_recovered(study: Study) -> None:
    trials = study.trials
    unsteered = trials["condition"].eq("no-steering")
    other = trials["condition"].eq("incidence")
    swapped = trials.assign(condition=trials["condition"].where(~unsteered, "incidence").where(~other, "no-steering"))
    assert not {f.experiment: f for f in findings(study, swapped)}["no-steering"].recovered


def test_nothing_is_said_without_trials(study: Study) -> None:
    assert findings(study, pd.DataFrame()) == []
