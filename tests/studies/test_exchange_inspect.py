"""Trials as an inspect_ai log, checked by inspect_ai's own reader."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog, read_eval_log, read_eval_log_sample_summaries

import esr
from esr.errors import UserError
from esr.judging.records import Unscored
from esr.studies.exchange import write_eval
from esr.studies.store import Store
from esr.studies.study import Study


@pytest.fixture(scope="module")
def study(organism_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The organism's study with one response unscored, a hostile label, and a second judge that saw one response."""
    folder = Path(shutil.copytree(organism_study, tmp_path_factory.mktemp("inspect") / "study"))
    own = esr.open(str(folder))
    first = own.trials.iloc[0]
    with Store.writing(folder) as store:
        store.drop_grades(own.judge_key, [first["response"]])
        store.add_grade(first["response"], own.judge_key, Unscored("timeout", "x"))
        other = "openai-api/x/m-0123456789abcdef"
        store.set_record("judge", other, {"name": "openai-api/x/m", "settings": {"name": "openai-api/x/m"}})
        store.add_grade(first["response"], other, Unscored("refused"))
    connection = sqlite3.connect(folder / "study.sqlite")
    with connection:
        (value,) = connection.execute("SELECT value FROM records WHERE kind = 'selection'").fetchone()
        selection = json.loads(value)
        selection["chosen"][0]["label"] = "\ud800 \x1b[31m </script>"
        connection.execute("UPDATE records SET value = ? WHERE kind = 'selection'", (json.dumps(selection),))
    connection.close()
    return esr.open(str(folder))


@pytest.fixture(scope="module")
def log(study: Study, tmp_path_factory: pytest.TempPathFactory) -> EvalLog:
    path = tmp_path_factory.mktemp("log") / "trials.eval"
    assert write_eval(study, path) == path
    assert [p.name for p in path.parent.iterdir()] == ["trials.eval"]
    return read_eval_log(str(path))


def test_every_trial_is_a_sample_with_what_was_said_and_done(study: Study, log: EvalLog) -> None:
    trials = study.trials.set_index("trial")
    assert log.status == "success"
    samples: dict[Any, Any] = {sample.id: sample for sample in log.samples or []}
    assert set(samples) == set(trials.index)
    summaries = read_eval_log_sample_summaries(log.location)
    assert {summary.id for summary in summaries} == set(samples)
    for key, row in trials.iterrows():
        sample = samples[key]
        assert sample.input == row["prompt"]
        assert sample.output.completion.endswith(row["text"])
        assert sample.output.completion.startswith(row["prefix"])
        assert sample.output.stop_reason == ("stop" if row["finish"] == "stop" else "max_tokens")
        for name in ("condition", "direction", "boost", "seed", "prompt_index", "degraded"):
            assert sample.metadata[name] == row[name]
        assert [a["score"] for a in sample.metadata["attempts"]] == [a.score for a in row["attempts"]]


def test_scores_are_the_judges_and_unscored_stays_unscored(study: Study, log: EvalLog) -> None:
    trials = study.trials.set_index("trial")
    unscored = 0
    for sample in log.samples or []:
        row, score = trials.loc[sample.id], (sample.scores or {})["rule"]
        if row["state"] == "scored":
            assert score.value["first"] == row["first_score"]  # type: ignore[index, call-overload]
            assert score.value["esr"] == row["improved"]  # type: ignore[index, call-overload]
        else:
            unscored += 1
            assert math.isnan(score.value)  # type: ignore[arg-type]
            assert "timeout" in (score.explanation or "")
            assert "openai-api/x/m" in (sample.scores or {})
    assert unscored >= 1


def test_the_rates_stand_with_their_counts(study: Study, log: EvalLog) -> None:
    assert log.results
    incidence = next(score for score in log.results.scores if score.name == "incidence")
    trials = study.trials[study.trials["condition"].eq("incidence")]
    assert incidence.metadata
    assert incidence.metadata["n_trials"] == len(trials)
    assert incidence.metadata["n_unscored"] == int(trials["state"].eq("unscored").sum())
    rate = incidence.metrics["esr_rate"]
    assert rate.value == pytest.approx(trials.loc[trials["state"].eq("scored"), "improved"].mean())
    assert rate.metadata
    assert rate.metadata["low"] <= rate.value <= rate.metadata["high"]


def test_no_address_of_a_judge_is_written(study: Study, tmp_path: Path) -> None:
    toml = study.folder / "study.toml"
    before = toml.read_text()
    toml.write_text(before.replace("#base_url", 'base_url = "https://user:pass-secret@example.org"\n#base_url'))
    try:
        log = read_eval_log(str(write_eval(esr.open(str(study.folder)), tmp_path / "x.eval")))
    finally:
        toml.write_text(before)
    assert "pass-secret" not in log.model_dump_json()


def test_mistakes(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"end in \.eval"):
        write_eval(study, tmp_path / "trials.json")
    with pytest.raises(UserError, match="can be written"):
        write_eval(study, "/proc/x/trials.eval")
