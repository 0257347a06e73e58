"""Several judges over one study: regrading, killed and resumed, coverage by screen and sample, cost, and no key left
behind."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from study_folders import contents, make_study, settings

import esr
from esr.analysis.metrics import summarise
from esr.errors import UserError
from esr.judging.records import Attempt, Exhibit, Scored, Unscored
from esr.steering.engine import Response
from esr.studies.config import JudgeSettings, read_config
from esr.studies.grading import LEFT_OUT, Grader, Place, judged_meanwhile
from esr.studies.judges import Coverage, make_judge
from esr.studies.planning import check_cost, plan_judging, plan_run
from esr.studies.progress import Silent
from esr.studies.regrading import prepare, regrade
from esr.studies.runner import run_study
from esr.studies.store import Store
from esr.studies.study import Study

sys.path.insert(0, str(Path(__file__).parents[1] / "judging"))
from fault_server import FaultServer

MODEL = "openai-api/fault/judge"
KEY = "sk-secret-7f3a9c"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Any, tiny_sae_folder: Any) -> Path:
    """A small study, run."""
    path = tmp_path_factory.mktemp("judged")
    make_study(path, settings(tiny_model_folder("llama"), tiny_sae_folder("standard")))
    config = read_config(path)
    run_study(path, config, config.experiments, Silent())
    return path


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FAULT_API_KEY", KEY)
    return KEY


def command(folder: Path, server: FaultServer, *more: str) -> list[str]:
    return [sys.executable, "-m", "esr.cli", "judge", str(folder), "--judge", MODEL, "--base-url", server.url, *more]


def test_killed_and_rerun_asks_only_for_what_is_missing(folder: Path, key: str) -> None:
    total = len(esr.open(str(folder)).trials)
    before = contents(folder)
    with FaultServer(lambda mark, call: "good", key=key) as server:
        child = subprocess.Popen(command(folder, server, "--max-connections", "4"), stdout=subprocess.DEVNULL)
        while sum(server.calls.values()) < total // 2:
            time.sleep(0.01)
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        stored = sum(row[1] != before["grades"][0][1] for row in contents(folder)["grades"])
        assert 0 < stored < total
        server.calls.clear()
        done = subprocess.run(command(folder, server), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert sum(server.calls.values()) == total - stored
        again = subprocess.run(command(folder, server), capture_output=True, text=True)
        assert again.returncode == 0
        assert sum(server.calls.values()) == total - stored, "a third run asks nothing"
    study = esr.open(str(folder))
    assert set(study.judges["name"]) == {"rule", MODEL}
    assert (study.judges["judged"] == total).all()
    assert set(before["grades"]) <= set(contents(folder)["grades"])  # the other judge's verdicts stay
    other = study.judges.set_index("name")["key"][MODEL]
    assert len(study.trials_by(other)) == total
    for path in folder.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes()
    assert key not in done.stdout + done.stderr


def test_what_failed_in_transport_is_asked_again_on_request(folder: Path, key: str) -> None:
    config = read_config(folder)
    with FaultServer(lambda mark, call: "500" if call % 2 else "good", key=key) as server:
        settings = JudgeSettings(name=MODEL, base_url=server.url, segments=True, max_tries=1)
        with Store.writing(folder) as store:
            first = regrade_key(folder, settings)
            rows = store.trials()
            for k, row in enumerate(rows):
                store.add_grade(row.response, first, Unscored(("timeout", "error", "refused")[k % 3]))
        assert regrade(prepare(folder, config, settings), Silent()) == first
        assert not server.calls
        regrade(prepare(folder, config, settings, retry=True), Silent())
        study = esr.open(str(folder))
        reasons = Counter(study.trials_by(first)["reason"])
        assert reasons["refused"] == len(range(2, len(rows), 3))
        assert server.calls


def regrade_key(folder: Path, settings: JudgeSettings) -> str:
    return make_judge(settings, read_config(folder).subject, folder).key


def test_agreement_of_the_two_judges(folder: Path, key: str) -> None:
    with FaultServer(lambda mark, call: "good", key=key) as server:
        regrade(prepare(folder, read_config(folder), JudgeSettings(name=MODEL, base_url=server.url)), Silent())
    out = subprocess.run(
        [sys.executable, "-m", "esr.cli", "agreement", str(folder), "--json"], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    pair = next(pair for pair in json.loads(out.stdout) if "rule" in pair["judges"])
    assert any(name.startswith(MODEL) for name in pair["judges"])
    assert 0 <= pair["raw"]["value"] <= 1


def test_a_stratified_sample_keeps_every_restart_and_counts_for_all(folder: Path, key: str) -> None:
    study = esr.open(str(folder))
    own = study.trials
    with FaultServer(lambda mark, call: "good", key=key) as server:
        out = subprocess.run(
            command(folder, server, "--sample", "6", "--rubric", str(rubric(folder)), "--max-connections", "3"),
            capture_output=True, text=True,
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        calls = sum(server.calls.values())
    newest = study.judges["key"].iloc[-1]
    sampled = study.trials_by(newest)
    assert calls <= len(sampled)  # nobody else was asked about; a blank text is not asked about at all
    places = ["direction", "prompt_index", "seed"]
    others = own[~own["multi_attempt"]].groupby(places).size()
    drawn = sampled[~sampled["response"].isin(own.loc[own["multi_attempt"], "response"])]
    assert len(sampled) - len(drawn) == own["multi_attempt"].sum()
    assert drawn.groupby(places).ngroups == math.ceil(6 * len(others) / others.sum())
    assert drawn.groupby(places).size().equals(others[drawn.set_index(places).index.unique()].sort_index())
    assert drawn["weight"].to_numpy() == pytest.approx(len(others) / drawn.groupby(places).ngroups)
    assert "Restart screen beside the judge" in out.stdout


def test_a_run_judges_by_what_was_noted_of_the_judge_not_by_less(
    tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any
) -> None:
    narrow = {"name": "rule", "cover": "screened", "cover_share": 0.25}
    values = settings(tiny_model_folder("llama"), tiny_sae_folder("standard"), judge=narrow)
    config = make_study(tmp_path, values)
    run_study(tmp_path, config, ["incidence"], Silent())
    study = Study.open(tmp_path)
    ((_, planned),) = study.progress().values()
    assert len(study.trials) < planned
    regrade(prepare(tmp_path, config, JudgeSettings(name="rule")), Silent())
    run_study(tmp_path, config, config.experiments, Silent())
    assert study.trials.groupby("condition").size().tolist() == [planned, planned]
    assert study.trials["weight"].eq(1).all()
    with pytest.raises(UserError, match=r"grows, it does not shrink. Got 0.25 of what is not screened"):
        prepare(tmp_path, config, config.judge)


def test_a_larger_sample_takes_the_place_of_a_smaller_and_none_follows_all(
    folder: Path, tmp_path: Path, key: str
) -> None:
    copied(folder, tmp_path)
    config = read_config(tmp_path)
    own = Study.open(tmp_path).trials
    with FaultServer(lambda mark, call: "good", key=key) as server:
        other = JudgeSettings(name=MODEL, base_url=server.url, rubric=str(rubric(tmp_path).resolve()), segments=True)
        judged = regrade(prepare(tmp_path, config, other, sample=4), Silent())
        few = set(Study.open(tmp_path).trials_by(judged)["trial"])
        regrade(prepare(tmp_path, config, other, sample=16), Silent())
        more = Study.open(tmp_path).trials_by(judged)
        assert few < set(more["trial"])
        assert len(more) >= own["multi_attempt"].sum() + 16
        assert sum(server.calls.values()) == more["text"].str.strip().ne("").sum()  # every verdict paid for counts
        assert more["weight"].sum() == pytest.approx(len(own), rel=0.2)
        assert not prepare(tmp_path, config, other, sample=4).missing
        regrade(prepare(tmp_path, config, other, sample=4), Silent())
        assert Study.open(tmp_path).trials_by(judged).equals(more)
        regrade(prepare(tmp_path, config, other), Silent())
        assert len(Study.open(tmp_path).trials_by(judged)) == len(own)
        with pytest.raises(UserError, match=r"does not shrink. Got a sample, and this judge was given everything"):
            prepare(tmp_path, config, other, sample=4)


def test_what_another_process_judged_meanwhile_is_neither_dropped_nor_paid_again(
    folder: Path, tmp_path: Path, key: str
) -> None:
    copied(folder, tmp_path)
    config = read_config(tmp_path)
    with FaultServer(lambda mark, call: "good", key=key) as server:
        other = JudgeSettings(name=MODEL, base_url=server.url, rubric=str(rubric(tmp_path).resolve()), max_tries=2)
        late = prepare(tmp_path, config, other)
        judged = regrade(prepare(tmp_path, config, other), Silent())
        with Store.writing(tmp_path) as store:
            first, second = sorted(late.missing)[:2]
            store.drop_grades(judged, [first, second])
            store.add_grade(first, judged, Unscored("timeout"))
        before, paid = contents(tmp_path)["grades"], sum(server.calls.values())
        assert late.missing
        regrade(late, Silent())
        assert set(before) < set(contents(tmp_path)["grades"])  # only the second is asked for: nobody said --retry
        retried = prepare(tmp_path, config, other, retry=True)
        assert list(retried.missing) == [first]
        regrade(prepare(tmp_path, config, other, retry=True), Silent())
        asked = sum(server.calls.values())
        assert asked <= paid + 2
        regrade(retried, Silent())
        assert sum(server.calls.values()) == asked


def rubric(folder: Path) -> Path:
    """Another rubric makes another judge."""
    from importlib.resources import files

    path = folder / "rubric.md"
    path.write_text(files("esr.judging").joinpath("rubric.md").read_text(encoding="utf-8") + "\nBe strict.\n")
    return path


def test_agreement_needs_two_judges(tmp_path: Path, folder: Path) -> None:
    connection = sqlite3.connect(folder / "study.sqlite")
    copy = sqlite3.connect(tmp_path / "study.sqlite")
    connection.backup(copy)
    copy.execute("DELETE FROM records WHERE kind = 'judge' AND value NOT LIKE '%\"rule\"%'")
    copy.commit()
    for name in ("study.toml", "prompts.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    out = subprocess.run([sys.executable, "-m", "esr.cli", "agreement", str(tmp_path)], capture_output=True, text=True)
    assert out.returncode == 2
    assert "agreement needs two judges. Got 1" in out.stderr


def test_a_missing_key_is_an_error_before_anything_runs(tmp_path: Path, folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    before = contents(folder)
    for model in ("openai/gpt-4.1-mini", "no-such-provider/model"):
        out = subprocess.run(
            [sys.executable, "-m", "esr.cli", "judge", str(folder), "--judge", model],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert out.returncode == 2, out.stderr
        assert "Traceback" not in out.stderr
    assert contents(folder) == before


def test_a_cost_limit_refuses_before_the_first_call(folder: Path, key: str) -> None:
    with FaultServer(lambda mark, call: "good", key=key) as server:
        out = subprocess.run(command(folder, server, "--max-cost", "0.01"), capture_output=True, text=True)
        assert out.returncode == 2
        assert "a cost limit needs the judge's price. Got none known for openai-api/fault/judge" in out.stderr
        assert not server.calls
    (folder / "prices.toml").write_text('[prices]\n"openai-api/fault" = [1000.0, 2000.0]\n')
    try:
        plan = plan_judging(folder, JudgeSettings(name=MODEL), responses=40, tokens=40 * 24)
        per_call = plan.judge_input_tokens // 40
        assert plan.dollars == pytest.approx((40 * per_call * 1000 + 40 * 90 * 2000) / 1e6)
        with pytest.raises(UserError, match=r"at most --max-cost 1.00 dollars. Got up to about"):
            check_cost(plan, 1.0)
        check_cost(plan, 1e6)
        (folder / "prices.toml").write_text("[prices]\nx = 3\n")
        with pytest.raises(UserError, match=r"NAME = \[input, output\]"):
            plan_judging(folder, JudgeSettings(name=MODEL), 1, 1)
    finally:
        (folder / "prices.toml").unlink()


def test_plan_counts_what_a_run_does(tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any) -> None:
    values = settings(tiny_model_folder("llama"), tiny_sae_folder("standard"), calibration={"method": "bisection"})
    config = make_study(tmp_path, values)
    planned = plan_run(tmp_path, config, config.experiments)
    assert {s.name: s.responses for s in planned.stages} == {
        "directions": 3 * 2,
        "calibration": 4 * 4 * 5,
        "trials": 4 * 5 * 2,
    }
    run_study(tmp_path, config, config.experiments, Silent())
    done = {stage: responses for stage, _, _, responses in _stages(tmp_path)}
    assert done["calibration"] == 80
    after = plan_run(tmp_path, config, config.experiments)
    assert after.responses == 0
    assert after.stored == sum(done.values())
    more = plan_run(tmp_path, config, [*config.experiments, "boost-sweep"])
    assert 0 < more.responses <= 4 * 5 * 14


def _stages(folder: Path) -> list[tuple[str, float, int, int]]:
    with Store.reading(folder) as store:
        return store.stages()


def said(text: str) -> Response:
    return Response("r", (1,), text, "stop", 0)


def test_coverage_is_by_place_and_weighted() -> None:
    coverage = Coverage(share=0.25)
    restart = (
        "The tram leaves platform four, a red tram, at noon. Wait, that is not right. Let me start over."
        " Heat the water in a pan and lower the egg into it."
    )
    assert coverage.weight(("d", 0, 1), "How do I boil an egg?", said(restart)) == 1
    weights = [coverage.weight(("d", 0, seed), "How do I boil an egg?", said("Heat the pan.")) for seed in range(4000)]
    assert set(weights) == {0.0, 4.0}
    assert np.mean(weights) == pytest.approx(1, abs=0.11)  # unbiased: 4 standard errors
    assert Coverage().weight(("d", 0, 1), "", said("")) == 1


def test_a_sample_estimates_the_whole(tmp_path: Path) -> None:
    """Rates from screened responses and a weighted sample agree with rates from all, within their intervals."""
    rng = np.random.default_rng(0)
    rows = []
    for direction in range(200):
        rate = rng.beta(2, 8)
        for prompt in range(10):
            multi = bool(rng.random() < rate)
            rows.append(
                {
                    "trial": f"{direction}-{prompt}", "condition": "c", "direction": f"d{direction}",
                    "prompt_index": prompt, "seed": 0, "state": "scored", "reason": "", "n_attempts": 1 + multi,
                    "multi_attempt": multi, "improved": multi, "first_score": 50.0,
                    "improvement": 10.0 if multi else float("nan"), "degraded": False, "promoted": False,
                    "screened": multi and rng.random() < 0.7,
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows)
    drawn = rng.random(len(frame)) < 0.25
    weight = np.where(frame["screened"], 1.0, np.where(drawn, 4.0, 0.0))
    sample = frame.assign(weight=weight)[weight > 0]
    whole, estimated = summarise(frame).iloc[0], summarise(sample).iloc[0]
    assert estimated["multi_attempt_rate_low"] < whole["multi_attempt_rate"] < estimated["multi_attempt_rate_high"]
    naive = sample["multi_attempt"].mean()
    assert not estimated["multi_attempt_rate_low"] < naive < estimated["multi_attempt_rate_high"]
    assert summarise(frame.assign(weight=1.0)).equals(summarise(frame))


class Late:
    """A judge that holds everything back to the end, and counts."""

    name = key = "late"

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def judge(self, exhibits: Any) -> Any:
        held = list(exhibits)
        for exhibit in reversed(held):
            self.asked[exhibit.id] += 1
            yield exhibit.id, Scored((Attempt(0, len(exhibit.response), 50.0),))


def test_a_judge_may_answer_late_and_in_any_order(tmp_path: Path) -> None:
    judge = Late()
    responses = [Response(f"r{k}", (1,), f"text {k}", "stop", 0) for k in range(50)]
    with Store.writing(tmp_path) as store:
        grader = Grader(store, judge, Silent(), Coverage(0.5))
        places = {r.id: Place("prompt", ("d", 0, k)) for k, r in enumerate(responses)}
        grades = grader.grade(iter(responses), places)
        assert set(grades) == set(places)
        left_out = {k for k, g in grades.items() if g == Unscored("not sampled")}
        assert set(judge.asked) == set(places) - left_out
        assert 10 < len(left_out) < 40
        grader.grade(iter(responses), places)
        assert set(judge.asked.values()) == {1}


def test_an_error_of_the_judge_reaches_the_caller() -> None:
    class Broken:
        name = key = "broken"

        def judge(self, exhibits: Any) -> Any:
            next(exhibits)
            raise UserError("the judge works", "it does not")
            yield

    with pytest.raises(UserError, match="the judge works"):
        list(judged_meanwhile(Broken(), iter([Exhibit("a", "p", "r")])))


def test_a_model_judge_runs_a_whole_study_while_it_generates(
    tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any, key: str
) -> None:
    with FaultServer(lambda mark, call: "good", key=key) as server:
        judge = {"name": MODEL, "base_url": server.url, "cover": "screened", "cover_share": 0.5}
        values = settings(tiny_model_folder("llama"), tiny_sae_folder("standard"), judge=judge)
        config = make_study(tmp_path, values)
        with pytest.raises(UserError, match="at least one direction reaches the target score"):
            run_study(tmp_path, config, config.experiments, Silent())  # this server scores every first attempt alike
        texts = [row[1] for row in contents(tmp_path)["responses"]]
        assert sum(server.calls.values()) == sum(bool(text.strip()) for text in texts)  # nobody is asked about nothing
    assert Study.open(tmp_path).judges["name"].tolist() == [MODEL]


def test_what_each_call_used_is_stored_and_priced_and_old_studies_open(
    tmp_path: Path, folder: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esr.judging.model.FIRST_PAUSE", 0.01)
    copied(folder, tmp_path)
    with sqlite3.connect(tmp_path / "study.sqlite") as old:  # as before there was such a table, and one judge
        old.execute("DROP TABLE judge_calls")
        old.execute("DELETE FROM records WHERE kind = 'judge' AND value NOT LIKE '%\"rule\"%'")
        old.execute("DELETE FROM grades WHERE judge NOT IN (SELECT key FROM records WHERE kind = 'judge')")
    assert Study.open(tmp_path).judge_usage.empty
    with FaultServer(lambda mark, call: ("500", "invented", "good", "good")[call % 4], key=key) as server:
        settings = JudgeSettings(name=MODEL, base_url=server.url, max_connections=2)
        made = regrade(prepare(tmp_path, read_config(tmp_path), settings), Silent())
        calls, failed = sum(server.calls.values()), server.served["500"]
    (used,) = Study.open(tmp_path).judge_usage.to_dict("records")  # and none for the rule judge
    assert (used["key"], used["name"], used["calls"], used["uncounted"]) == (made, MODEL, calls, failed)
    assert failed > 0
    assert (used["input_tokens"], used["output_tokens"]) == (100 * (calls - failed), 30 * (calls - failed))
    assert np.isnan(used["dollars"])
    (tmp_path / "prices.toml").write_text(f'[prices]\n"{MODEL}" = [2.0, 10.0]\n')
    priced = Study.open(tmp_path).judge_usage["dollars"].item()
    assert priced == pytest.approx((2.0 * used["input_tokens"] + 10.0 * used["output_tokens"]) / 1e6)
    with sqlite3.connect(tmp_path / "study.sqlite") as store:
        by_response = Counter(row[0] for row in store.execute("SELECT response FROM judge_calls"))
    assert set(by_response) <= set(Study.open(tmp_path).trials["response"])
    assert sum(by_response.values()) == calls
    assert max(by_response.values()) > 1  # one that was asked about again


def copied(source: Path, target: Path) -> None:
    """The study in another folder."""
    target.mkdir(exist_ok=True)
    with sqlite3.connect(source / "study.sqlite") as connection, sqlite3.connect(target / "study.sqlite") as copy:
        connection.backup(copy)
    for name in ("study.toml", "prompts.txt"):
        if (source / name).exists():
            (target / name).write_bytes((source / name).read_bytes())


def test_judged_and_unscored_are_counted_as_read_one_by_one(folder: Path, tmp_path: Path) -> None:
    copied(folder, tmp_path)
    study = Study.open(tmp_path)
    with Store.writing(tmp_path) as store:
        rows = store.trials()
        for k, row in enumerate(rows[:12]):
            store.drop_grades(study.judge_key, [row.response])
            left = (LEFT_OUT, Unscored("timeout", "x"), Unscored("refused"))[k % 3]
            store.add_grade(row.response, study.judge_key, left)
        responses = sorted({row.response for row in rows})
        slow = {key: store.grades(responses, key).values() for key in store.records("judge")}
    found = study.judges.set_index("key")
    for key, grades in slow.items():
        judged = [grade for grade in grades if grade != LEFT_OUT]
        assert found.loc[key, "judged"] == len(judged)
        assert found.loc[key, "unscored"] == sum(isinstance(grade, Unscored) for grade in judged)
    assert found.loc[study.judge_key, "unscored"] >= 6
