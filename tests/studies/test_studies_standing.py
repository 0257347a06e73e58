"""What is still to come: counted exactly where it is known, else an upper bound; and how far a study is."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from organism_studies import make_organism_study

from esr.studies.config import read_config
from esr.studies.experiments.registry import experiments
from esr.studies.planning import Part, plan_run
from esr.studies.standing import standing
from esr.studies.study import Study


@pytest.fixture
def copied(organism_study: Path, tmp_path: Path) -> Path:
    """A finished study one may change."""
    return Path(shutil.copytree(organism_study, tmp_path / "study"))


def changed(folder: Path, sql: str, *values: object) -> None:
    connection = sqlite3.connect(folder / "study.sqlite")
    with connection:
        connection.execute(sql, values)
    connection.close()


def responses(folder: Path, key: str) -> list[str]:
    """The responses of an experiment's trials."""
    trials = Study.open(folder).trials
    return sorted(set(trials.loc[trials["condition"].isin(Study.open(folder).experiments[key].controls), "response"]))


def forget(folder: Path, key: str) -> int:
    """Take an experiment's trials and notes out of the study file; returns how many responses it had."""
    did = len(responses(folder, key))
    for name in Study.open(folder).experiments[key].controls:
        changed(folder, "DELETE FROM trials WHERE condition = ?", name)
    changed(folder, "DELETE FROM records WHERE kind = 'experiment' AND key = ?", key)
    return did


def test_nothing_is_to_come_of_a_finished_study(organism_study: Path) -> None:
    planned = plan_run(organism_study, read_config(organism_study), ["all"])
    assert (planned.responses, planned.parts) == (0, ())
    found = standing(Study.open(organism_study))
    assert found.begun
    assert (found.waiting, found.to_come) == (0, 0)
    assert all(done == of for done, of in found.conditions.values())


@pytest.mark.parametrize(
    "key", ["prompt-only", "meta-prompts", "branch", "prefill", "matched-prefix", "forced-restart"]
)
def test_an_experiment_that_was_not_begun_takes_no_more_than_was_said(copied: Path, key: str) -> None:
    did = forget(copied, key)
    (part,) = plan_run(copied, read_config(copied), [key]).parts
    assert 0 < did <= part.responses
    cells = 3 * sum(Study.open(copied).calibration["threshold"].notna())
    if experiments()[key].whole_grid:
        assert part == Part(key, cells, True)
        assert did == cells
    elif key != "meta-prompts":  # restarted responses are known, so it is less than the whole grid
        assert not part.exact
        assert part.responses < cells * experiments()[key].arms(read_config(copied).settings_of(key))


def test_what_was_begun_is_counted_exactly(copied: Path) -> None:
    for key in responses(copied, "branch")[:7]:
        changed(copied, "DELETE FROM responses WHERE key = ?", key)
        changed(copied, "DELETE FROM grades WHERE response = ?", key)
    assert plan_run(copied, read_config(copied), ["branch"]).parts == (Part("branch", 7, True),)


def test_what_waits_for_the_judge_is_counted(copied: Path) -> None:
    trials = Study.open(copied).trials
    for key in sorted(set(trials.loc[trials["condition"].eq("incidence"), "response"]))[:5]:
        changed(copied, "DELETE FROM grades WHERE response = ?", key)
    found = standing(Study.open(copied))
    assert found.waiting == 5
    assert "5 responses wait for the judge." in found.lines()
    assert any(line.startswith("incidence: ") for line in found.lines())


def test_a_file_of_meta_prompts_and_discovery_are_counted_before_anything_runs(tmp_path: Path) -> None:
    make_organism_study(tmp_path, ["meta-prompts"], count=4, per_direction=2)
    (tmp_path / "mine.toml").write_text('a = "{prompt} Stay on topic."\nb = "{prompt} Careful."\n')
    text = (tmp_path / "study.toml").read_text()
    text = text.replace("#[experiment.meta-prompts]", '[experiment.meta-prompts]\nfile = "mine.toml"')
    (tmp_path / "study.toml").write_text(text)
    planned = plan_run(tmp_path, read_config(tmp_path), ["meta-prompts", "otd-discovery"])
    parts = {part.experiment: part for part in planned.parts}
    assert parts["meta-prompts"].responses == 4 * 2 * 2
    assert parts["otd-discovery"].exact
    assert planned.judge_calls == planned.responses - parts["otd-discovery"].responses


def test_discovery_generates_what_was_said(copied: Path) -> None:
    stages = Study.open(copied).stages.set_index("stage")["responses"]
    changed(copied, "DELETE FROM records WHERE kind = 'result' AND key = 'otd-discovery'")
    parts = plan_run(copied, read_config(copied), ["otd-discovery"]).parts
    assert parts == (Part("otd-discovery", int(stages["otd-discovery"]), True),)


def test_time_left_follows_from_what_each_stage_took(copied: Path) -> None:
    did = forget(copied, "prompt-only")
    planned = plan_run(copied, read_config(copied), ["prompt-only"])
    stage = Study.open(copied).stages.set_index("stage").loc["trials"]
    assert planned.seconds == pytest.approx(did * stage["seconds"] / stage["responses"])
