"""Text against activations: what the arms of these experiments continue, under what, and that they stay comparable."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from esr.errors import UserError
from esr.judging.lexicon import Lexicon
from esr.judging.screen import find_restarts
from esr.studies.conditions import Condition
from esr.studies.config import parse_config, read_config
from esr.studies.episodes import CLOSE
from esr.studies.experiments.registry import Experiment, experiments, register, unregister, wanted
from esr.studies.progress import Silent
from esr.studies.runner import run_study
from esr.studies.store import Store
from esr.studies.study import Study


@pytest.fixture(scope="module")
def study(organism_study: Path) -> Study:
    return Study.open(organism_study)


@pytest.fixture(scope="module")
def trials(study: Study) -> pd.DataFrame:
    return study.trials.set_index("trial", drop=False)


@pytest.fixture(scope="module")
def tokens(organism_study: Path) -> dict[str, tuple[int, ...]]:
    """Tokens of each trial's response."""
    with Store.reading(organism_study) as store:
        rows = store.trials()
        responses = store.responses(sorted({row.response for row in rows}))
    return {row.key: responses[row.response].token_ids for row in rows}


def arm(trials: pd.DataFrame, condition: str) -> pd.DataFrame:
    found = trials[trials["condition"] == condition]
    assert len(found), condition
    return found


CONTINUED = ["prefill", "steered", "held", "released at restart", "released after", "prefix", "restart", "branch"]


def test_a_continuation_begins_with_the_tokens_of_its_source(
    trials: pd.DataFrame, tokens: dict[str, tuple[int, ...]]
) -> None:
    continued = trials[trials["prefix_tokens"] > 0]
    assert all(any(name.startswith(start) for start in CONTINUED) for name in continued["condition"].unique())
    for row in continued.itertuples():
        given = tokens[row.trial][: row.prefix_tokens]
        source = tokens[row.source]
        if row.condition == "restart forced":
            continue
        first = trials.loc[row.source, "condition"] == "no-steering" or not row.condition.startswith("prefix")
        at = 0 if first else _find(source, given)
        assert source[at : at + len(given)] == given


def _find(source: tuple[int, ...], part: tuple[int, ...]) -> int:
    return next(i for i in range(len(source)) if source[i : i + len(part)] == part)


def test_all_arms_are_equally_long_at_most(study: Study, tokens: dict[str, tuple[int, ...]]) -> None:
    limit = study.config.sampling.max_new_tokens
    assert max(map(len, tokens.values())) <= limit
    cut = study.trials.query("finish == 'length'")
    assert set(cut["n_tokens"]) == {limit}
    assert (cut["prefix_tokens"] > 0).any()  # a prefill counts as part of the response


def test_beginnings_hold_no_restart_but_where_it_was_put_in(trials: pd.DataFrame) -> None:
    for name in [n for n in trials["condition"].unique() if n.startswith("prefill")]:
        for row in arm(trials, name).itertuples():
            assert not find_restarts(row.prefix, row.prompt)
            first = trials.loc[row.source, "attempts"][1:2]
            assert all(len(row.prefix) <= attempt.start for attempt in first)


def test_the_prefill_is_continued_without_steering_and_released_text_was_steered(organism_study: Path) -> None:
    with Store.reading(organism_study) as store:
        rows = {row.condition: row for row in store.trials()}
        steered = {name: store.responses([row.response])[row.response] for name, row in rows.items()}
    assert steered["prefill at restart"].steered_positions == 0
    row = rows["released at restart"]
    held = steered["held at restart"].steered_positions
    assert 0 < steered["released at restart"].steered_positions < held or held == 0
    assert row.boost > 0
    assert steered["prompt-only"].steered_positions > 0
    assert steered["response-only"].steered_positions <= len(steered["response-only"].token_ids)


def test_released_and_held_are_partners(study: Study) -> None:
    for where in ("at restart", "after announcement"):
        row = study.compare(f"released {where}", f"held {where}").iloc[0]
        assert row["n_unmatched_treatment"] == row["n_unmatched_control"] == 0
        assert row["n_pairs"] > 0


def test_matched_prefixes_are_equally_long_and_judged_without_the_prefix(trials: pd.DataFrame) -> None:
    arms = [arm(trials, f"prefix {name}") for name in ("own recovery", "another's recovery", "on-topic text")]
    assert len({len(a) for a in arms}) == 1
    assert len({n for a in arms for n in a["prefix_tokens"]}) == 1
    for part in arms:
        for row in part.itertuples():
            assert not row.text.startswith(row.prefix)
            assert all(0 <= a.start <= a.end <= len(row.text) for a in row.attempts)
    others = arms[1]
    assert all(trials.loc[row.source, "prompt_index"] != row.prompt_index for row in others.itertuples())
    assert all(trials.loc[row.source, "condition"] == "no-steering" for row in arms[2].itertuples())


def test_a_forced_restart_differs_from_its_control_by_the_phrase_alone(study: Study, trials: pd.DataFrame) -> None:
    path = study.config.subject.lexicon_path()
    assert path is not None
    phrases = Lexicon.load(path).restart_phrases
    forced = arm(trials, "restart forced").set_index(["direction", "prompt_index", "seed"])
    plain = arm(trials, "restart not forced").set_index(["direction", "prompt_index", "seed"])
    assert set(forced.index) == set(plain.index)
    for cell, row in forced.iterrows():
        assert row["prefix"].startswith(plain.loc[cell, "prefix"])
        assert row["prefix"][len(plain.loc[cell, "prefix"]) :].strip() in phrases
        assert not trials.loc[row["source"], "multi_attempt"]


def test_branches_of_one_beginning_have_seeds_of_their_own(trials: pd.DataFrame) -> None:
    branches = arm(trials, "branch at restart")
    per_source = branches.groupby("source")
    assert set(per_source.size()) == {2}
    assert (per_source["seed"].nunique() == 2).all()
    earlier = arm(trials, "branch earlier").groupby("source")["prefix_tokens"].first()
    assert (earlier <= per_source["prefix_tokens"].first()).all()
    assert not trials.loc[arm(trials, "branch without restart")["source"], "multi_attempt"].any()


def test_activations_are_read_under_each_responses_own_steering(study: Study, organism_study: Path) -> None:
    """Against one reading by hand: the same text through the engine, with the trial's direction added."""
    import numpy as np

    from esr.steering.hf import HFEngine
    from esr.steering.interventions import Add, Direction
    from esr.subjects.chat import chat_ids
    from esr.subjects.loading import load_subject

    activations = study.activations
    subject = load_subject(study.config.subject)
    trials = study.trials.set_index("trial")
    assert {r.kind for r in activations.readings} == {"episode", "no-recovery", "unsteered"}
    with Store.reading(organism_study) as store:
        rows = {row.key: row for row in store.trials()}
        for kind in ("episode", "unsteered"):
            reading = next(r for r in activations.readings if r.kind == kind)
            row = rows[reading.trial]
            ids = store.responses([row.response])[row.response].token_ids
            latent = int(row.direction.split(":")[1])
            vector = subject.require_reader().direction(latent)
            adds = [Add(Direction(row.direction, vector), row.boost, 1)] if row.boost else []
            prompt = chat_ids(subject, study.config.subject, row.prompt)
            by_hand = HFEngine(subject).read(prompt + ids, activations.latents, adds, prompt_length=len(prompt))
            np.testing.assert_allclose(reading.values, by_hand[len(prompt) :], atol=1e-4)
            assert reading.end == len(ids)
    episode = next(r for r in activations.readings if r.kind == "episode")
    text = trials.loc[episode.trial, "text"]
    start = trials.loc[episode.trial, "attempts"][1].start
    assert 0 < episode.restart < episode.correction_end <= episode.end
    assert abs(len(text[:start].split()) - episode.restart) <= len(text[:start]) / 8


def test_partners_went_as_far_off_topic_and_never_restarted(study: Study, trials: pd.DataFrame) -> None:
    pairs = [(r.episode, r.trial) for r in study.activations.readings if r.kind == "no-recovery"]
    assert pairs
    for episode, partner in pairs:
        assert abs(trials.loc[episode, "first_score"] - trials.loc[partner, "first_score"]) <= CLOSE
        assert trials.loc[partner, "n_attempts"] == 1
    noted = study.result("activations")["partners"]
    assert noted["matched"] == len(pairs) <= noted["episodes"]
    assert 0 <= noted["score_gap"] <= CLOSE


def test_verdicts_that_come_later_do_not_choose_other_trials(tmp_path: Path, organism_study: Path) -> None:
    """Half of the restarts are taken back, as another verdict of the same judge would; the conditions stay."""
    folder = tmp_path / "copy"
    shutil.copytree(organism_study, folder)
    before = Study.open(folder).trials
    db = sqlite3.connect(folder / "study.sqlite")
    multi = before[(before["condition"] == "incidence") & before["multi_attempt"]]["response"].iloc[::2]
    unscored = json.dumps({"reason": "timeout", "detail": ""})
    db.executemany("UPDATE grades SET judgement = ? WHERE response = ?", [(unscored, key) for key in multi])
    db.commit()
    db.close()
    config = read_config(folder)
    run_study(folder, config, ["all"], Silent())
    after = Study.open(folder).trials
    assert set(after["trial"]) == set(before["trial"])
    for key in Study.open(folder).experiments:
        Study.open(folder).comparisons(key, after)


def test_a_template_with_a_label_is_asked_where_there_is_one(organism_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(organism_study, folder)
    (folder / "mine.toml").write_text('named = "{prompt} not {label}"\nplain = "{prompt} please"\n')
    config = read_config(folder).model_copy(update={"experiment": {"meta-prompts": {"file": "mine.toml"}}})
    with pytest.raises(UserError, match="has run"):
        run_study(folder, config, ["meta-prompts"], Silent())


def test_one_name_is_one_condition(organism_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(organism_study, folder)
    twice = Experiment("twice", "?", lambda lab, _: [Condition("same"), Condition("same", boost_factor=0.5)])
    register(twice)
    try:
        with pytest.raises(UserError, match="their own names"):
            run_study(folder, read_config(folder), ["twice"], Silent())
    finally:
        unregister(twice)


def test_boost_levels_are_standard_deviations_of_the_thresholds(study: Study, trials: pd.DataFrame) -> None:
    thresholds = trials.groupby("direction")["threshold"].first()
    above = arm(trials, "boost +1 sd")["boost"].unique()
    assert len(above) == 1
    assert above[0] == pytest.approx(thresholds.mean() + thresholds.std(ddof=0))
    assert (arm(trials, "boost x2")["boost"] == 2 * arm(trials, "boost x2")["threshold"]).all()


# ---- the registry


def test_what_an_experiment_needs_runs_before_it() -> None:
    order = list(experiments())
    for experiment in experiments().values():
        assert all(order.index(need) < order.index(experiment.key) for need in experiment.needs)
    assert [e.key for e in wanted(["activations"])][-1] == "activations"
    assert {e.key for e in wanted(["otd-ablation"])} >= {"incidence", "otd-discovery"}
    assert "fine-tuning" not in {e.key for e in wanted(["all"])}


def test_an_unknown_experiment_or_setting_is_refused_before_any_work(organism_study: Path) -> None:
    with pytest.raises(UserError, match="known key"):
        wanted(["otd-discoveries"])
    plain: dict[str, Any] = read_config(organism_study).model_dump(mode="json", exclude_none=True)
    for wrong in ({"nonsense": {}}, {"branch": {"time": 3}}, {"branch": {"times": "many"}}):
        with pytest.raises(UserError):
            parse_config({**plain, "experiment": wrong}, "study.toml")


def test_settings_of_an_experiment_that_ran_do_not_change(tmp_path: Path, organism_study: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(organism_study, folder)
    config = read_config(folder)
    changed = config.model_copy(update={"experiment": {**config.experiment, "branch": {"times": 3}}})
    with pytest.raises(UserError, match=r"times: 2 -> 3"):
        run_study(folder, changed, ["branch"], Silent())
