"""What may change between two runs of a study, and what the study then says."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from study_folders import count_rows, make_study, run, settings

import esr
from esr.cli.studies import plan, status
from esr.errors import UserError
from esr.judging.agreement import pairwise_agreement
from esr.judging.records import Attempt, Exhibit, Judgement, Scored, Unscored
from esr.steering.engine import Response
from esr.studies.conditions import Condition
from esr.studies.config import JudgeSettings, parse_config, read_config
from esr.studies.experiments.registry import Experiment, Settings, register, unregister
from esr.studies.grading import LEFT_OUT, Grader, Place, judged_meanwhile
from esr.studies.judges import Coverage, record_judge
from esr.studies.new import write_study
from esr.studies.planning import plan_judging, plan_run
from esr.studies.progress import Silent
from esr.studies.runner import run_study
from esr.studies.store import Store
from esr.studies.study import Study


class Counting:
    """Scores everything 50; remembers whom it was asked about."""

    name, key = "counting", "counting-1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def judge(self, exhibits: Any) -> Iterator[tuple[str, Judgement]]:
        for exhibit in exhibits:
            self.asked.append(exhibit.id)
            yield exhibit.id, Scored((Attempt(0, 1, 50.0),))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Any, tiny_sae_folder: Any) -> Path:
    path = tmp_path_factory.mktemp("done")
    make_study(path, settings(tiny_model_folder("llama"), tiny_sae_folder("standard")))
    run(path)
    return path


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "study"))


def test_a_wider_coverage_judges_what_a_narrower_left_out(tmp_path: Path) -> None:
    responses = [Response(f"r{k}", (1,), f"text {k}", "stop", 0) for k in range(40)]
    places = {r.id: Place("prompt", ("d", 0, k)) for k, r in enumerate(responses)}
    judge = Counting()
    with Store.writing(tmp_path) as store:
        few = Grader(store, judge, Silent(), Coverage(0.25)).grade(iter(responses), places)
        assert 0 < len(judge.asked) < 40
        assert list(few.values()).count(LEFT_OUT) == 40 - len(judge.asked)
        every = Grader(store, judge, Silent(), Coverage()).grade(iter(responses), places)
        assert sorted(judge.asked) == sorted(places)  # each once
        assert all(isinstance(grade, Scored) for grade in every.values())
        again = Grader(store, judge, Silent(), Coverage(0.25)).grade(iter(responses), places)
        assert again == every
        assert len(judge.asked) == 40


def test_the_widest_coverage_of_a_judge_stands_and_no_address_is_stored(folder: Path) -> None:
    whole = len(esr.open(str(folder)).trials)
    judge = Counting()
    with Store.writing(folder) as store:
        for settings, share in (
            (JudgeSettings(name="m", cover="screened", base_url="https://u:secret@host"), 0.25),
            (JudgeSettings(name="m"), 1),
            (JudgeSettings(name="m", cover="screened"), 1),
        ):
            record_judge(store, judge, settings, Coverage.of(settings))
            assert Coverage.recorded(store.record("judge", judge.key)).share == share
    assert len(esr.open(str(folder)).trials) == whole
    assert all(b"secret" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_stop_begins_no_more_verdicts_and_keeps_those_begun() -> None:
    import time

    class Slow(Counting):
        def judge(self, exhibits: Any) -> Iterator[tuple[str, Judgement]]:
            for verdict in super().judge(exhibits):
                time.sleep(0.02)
                yield verdict

    def interrupted() -> Iterator[Exhibit]:
        yield from (Exhibit(str(k), "p", "r") for k in range(1000))
        time.sleep(0.1)
        raise KeyboardInterrupt

    judge = Slow()
    kept: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        kept.extend(id for id, _ in judged_meanwhile(judge, interrupted()))
    assert kept == judge.asked
    assert 0 < len(kept) < 100


def test_settings_that_are_not_those_of_the_results_are_refused_on_reading(folder: Path) -> None:
    path = folder / "study.toml"
    path.write_text(path.read_text().replace("temperature = 0.9", "temperature = 0.5"))
    with pytest.raises(UserError, match=r"sampling.temperature: 0.9 -> 0.5"):
        esr.open(str(folder))


def test_another_rule_set_of_the_judge_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esr.judging.rule.RULE_VERSION", -1)
    with pytest.raises(UserError, match="the judge's rules of a study that has results do not change"):
        run(folder)


def test_before_there_are_thresholds_files_may_change(
    tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any
) -> None:
    values = settings(tiny_model_folder("llama"), tiny_sae_folder("standard"), directions={"concreteness": "paper"})
    make_study(tmp_path, values)
    with pytest.raises(UserError, match=r"concreteness is graded from labels\. Got none for"):
        run(tmp_path)
    study = esr.open(str(tmp_path))
    assert study.trials.empty
    assert study.calibration.empty
    status(tmp_path)
    toml = tmp_path / "study.toml"
    toml.write_text(toml.read_text().replace('concreteness = "paper"', 'concreteness = "none"'))
    (tmp_path / "prompts.txt").write_text("How do i grow a garden?\nHow do i paint a wall?\n")
    run(tmp_path)
    assert set(esr.open(str(tmp_path)).trials["prompt_index"]) == {0, 1}


def test_vectors_of_a_study_with_results_do_not_change(tmp_path: Path, tiny_model_folder: Any) -> None:
    from transformers import AutoConfig

    model = tiny_model_folder("llama")
    values = settings(model, Path())
    del values["subject"]["sae"]
    values["directions"] = {"count": 2, "vectors": "vectors.safetensors"}
    make_study(tmp_path, values)
    rng = np.random.default_rng(0)
    width = AutoConfig.from_pretrained(model).hidden_size

    def write() -> None:
        save_file({n: rng.normal(size=width).astype(np.float32) for n in "ab"}, tmp_path / "vectors.safetensors")

    write()
    run(tmp_path)
    run(tmp_path)
    write()
    with pytest.raises(UserError, match="the vectors of a study that has results do not change"):
        run(tmp_path)


def test_judges_of_one_name_are_told_apart(folder: Path) -> None:
    with Store.writing(folder) as store:
        for key in ("aaaaaaaa", "bbbbbbbb"):
            store.set_record("judge", key, {"name": "openai/m", "settings": {"name": "openai/m"}})
            for row in store.trials():
                store.add_grade(row.response, key, Unscored("timeout"))
    judgements = esr.open(str(folder)).judgements
    assert set(judgements["judge"]) == {"rule", "openai/m aaaaaa", "openai/m bbbbbb"}
    assert len(pairwise_agreement(judgements, seed=0, resamples=10)) == 3


@pytest.mark.parametrize(
    "data",
    [
        {"subject": "x"},
        {"subject": {"preset": ["a"]}},
        {"subject": {"preset": "organism"}, "sampling": 3},
        {"subject": {"preset": "organism"}, "calibration": "x"},
    ],
)
def test_sections_of_the_wrong_kind_are_users_mistakes(data: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        parse_config({"name": "x", **data}, "study.toml")


def test_an_unknown_setting_is_named_without_its_value() -> None:
    data = {"name": "x", "subject": {"preset": "organism"}, "judge": {"api_key": "sk-secret"}}
    with pytest.raises(UserError, match=r"judge\.api_key: there is no such setting") as caught:
        parse_config(data, "study.toml")
    assert "sk-secret" not in str(caught.value)


def test_any_name_can_be_written(tmp_path: Path) -> None:
    name = 'smile \U0001f600 "quoted" \\ tab\t del\x7f bell\x07'
    write_study(tmp_path, {"name": name, "subject": {"preset": "organism"}})
    assert read_config(tmp_path).name == name


def test_no_control_character_reaches_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.writing(folder) as store:
        store.add_to_stage("judging by \x1b[31m", 1, 1, 1)
    status(folder)
    text = (folder / "study.toml").read_text().replace('name = "rule"', 'name = "x/\\u001b[31m"')
    (folder / "study.toml").write_text(text)
    plan(folder)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("template", "named"),
    [("{prompt} " + "and then wash it " * 30, "long"), ("{prompt} do not mention {label}", "label")],
)
def test_meta_prompts_that_do_not_fit_are_refused_before_anything_is_generated(
    tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any, template: str, named: str
) -> None:
    values = settings(tiny_model_folder("llama"), tiny_sae_folder("standard"))
    (tmp_path / "labels.json").write_text(json.dumps({"5": "soup and bread " * 40, "6": "soup"}))
    values["subject"]["labels"] = str(tmp_path / "labels.json")
    values |= {"experiments": ["meta-prompts"], "experiment": {"meta-prompts": {"file": "meta.toml"}}}
    make_study(tmp_path, values)
    (tmp_path / "meta.toml").write_text(f'fits = "{{prompt}} please"\n{named} = {json.dumps(template)}\n')
    with pytest.raises(UserError, match=rf"fit into the model's context.*for prompt 1 of meta-prompts, {named}"):
        run(tmp_path)
    assert count_rows(tmp_path) == 0
    (tmp_path / "meta.toml").write_text('fits = "{prompt} please"\n')
    run(tmp_path)
    assert "meta fits" in set(Study.open(tmp_path).trials["condition"])


def changed(folder: Path, sql: str) -> int:
    connection = sqlite3.connect(folder / "study.sqlite")
    with connection:
        count = connection.execute(sql).rowcount
    connection.close()
    return count


def test_the_plan_counts_what_is_stored_and_not_judged(folder: Path) -> None:
    config = read_config(folder)
    assert plan_run(folder, config, config.experiments).judge_calls == 0
    some = "WHERE response IN (SELECT response FROM trials WHERE purpose = 'trial' AND condition = '{}' LIMIT 3)"
    assert changed(folder, "DELETE FROM grades " + some.format("incidence")) == 3
    mark = json.dumps(LEFT_OUT.to_json())
    assert changed(folder, f"UPDATE grades SET judgement = '{mark}' " + some.format("no-steering")) == 3
    planned = plan_run(folder, config, config.experiments)
    assert (planned.responses, planned.waiting, planned.judge_calls) == (0, 6, 6)
    run(folder)
    assert plan_run(folder, config, config.experiments).judge_calls == 0
    gone = changed(folder, "DELETE FROM trials WHERE condition = 'incidence'")  # stopped before they were stored
    assert plan_run(folder, config, config.experiments).responses == gone > 0


def test_a_rubric_that_is_not_text_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "rubric.md").write_bytes(b"\xff\xfe{{form}}")
    with pytest.raises(UserError, match=r"the rubric can be read. Got it is not UTF-8"):
        plan_judging(tmp_path, JudgeSettings(name="openai/m", rubric="rubric.md"), 1, 1)


class Own(Settings):
    good: bool = False
    factor: float = 1.5


def run_own(folder: Path, experiment: Experiment, **settings: Any) -> None:
    """Run one experiment that is known for as long as that takes."""
    register(experiment)
    try:
        config = read_config(folder).model_copy(update={"experiment": {experiment.key: settings}})
        run_study(folder, config, [experiment.key], Silent())
    finally:
        unregister(experiment)


@pytest.mark.parametrize("part", ["work", "conditions"])
def test_an_experiment_that_failed_may_be_put_right(folder: Path, part: str) -> None:
    def do(lab: Any, settings: Own) -> list[Condition]:
        if not settings.good:
            raise UserError("it is good", False, "Set good")
        return []

    experiment = Experiment("own", "?", settings=Own, **{part: do})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="it is good"):
        run_own(folder, experiment)
    run_own(folder, experiment, good=True)
    with pytest.raises(UserError, match=r"an experiment that has run \(own\) do not change.*good: True -> False"):
        run_own(folder, experiment)


def test_names_of_conditions_are_compared_before_they_are_noted(folder: Path) -> None:
    def twice(lab: Any, settings: Own) -> list[Condition]:
        return [Condition("own a"), Condition("own a" if not settings.good else "own b")]

    experiment = Experiment("own", "?", twice, settings=Own, counted=None)
    with pytest.raises(UserError, match="have their own names"):
        run_own(folder, experiment)
    run_own(folder, experiment, good=True)
    with pytest.raises(UserError, match="differ in their first six digits"):
        read_config(folder).model_copy(update={"experiment": {"boost-sweep": {"factors": [1.0, 1.0]}}}).settings_of(
            "boost-sweep"
        )


def test_a_condition_is_what_it_was(folder: Path) -> None:
    def made(**how: Any) -> Experiment:
        return Experiment("own", "?", lambda lab, settings: [Condition("own", **how)], settings=Own)

    run_own(folder, made(boost_factor=1.5))
    before = len(Study.open(folder).trials)
    run_own(folder, made(boost_factor=1.5, control=None))  # no trial depends on it
    with pytest.raises(UserError, match=r"a condition is what it was when it first ran. Got own, with \d+ stored"):
        run_own(folder, made(boost_factor=2.0))
    assert len(Study.open(folder).trials) == before
