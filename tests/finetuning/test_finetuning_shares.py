"""A whole fine-tuning of a tiny random model: data, adapters, their studies, the table, and stopping anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("peft")

from tuning_studies import RESTARTS, TUNING, new_study

import esr
from esr.analysis.metrics import summarise
from esr.errors import UserError
from esr.finetuning.dose import dose_response
from esr.finetuning.examples import Example, Segment, read_examples, write_examples
from esr.finetuning.planning import plan_fine_tuning
from esr.finetuning.settings import FineTuneSettings, read_settings
from esr.finetuning.shares import run_fine_tuning
from esr.finetuning.substudy import adapter_study, share_folder
from esr.studies.config import StudyConfig, read_config
from esr.studies.progress import Silent
from esr.studies.study import Study


@pytest.fixture
def study(tmp_path: Path, tiny_model_folder: Callable[..., Path], tiny_sae_folder: Callable[..., Path]) -> Path:
    return new_study(tmp_path / "study", tiny_model_folder("llama"), tiny_sae_folder("standard"))


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model_folder: Callable[..., Path],
    tiny_sae_folder: Callable[..., Path],
) -> Path:
    """A study whose fine-tuning ran in one go; only read."""
    folder = tmp_path_factory.mktemp("tuned") / "study"
    new_study(folder, tiny_model_folder("llama"), tiny_sae_folder("standard"))
    tune(folder)
    return folder


def tune(folder: Path, progress: Any = None, **changed: Any) -> StudyConfig:
    config = read_config(folder)
    run_fine_tuning(folder, config, progress or Silent(), FineTuneSettings.model_validate(TUNING | changed))
    return config


class Kill(Silent):
    """Stops when a stage has begun for the n-th time and so many responses are done."""

    def __init__(self, stage: str, times: int, after: int = 0) -> None:
        self.stage, self.times, self.after = stage, times, after
        self.inside = False

    def start(self, stage: str, total: int) -> None:
        self.times -= stage == self.stage
        self.inside = stage == self.stage and self.times == 0

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        self.after -= responses if self.inside else 0
        if self.inside and self.after <= 0:
            raise KeyboardInterrupt


def test_adapters_are_trained_and_each_is_measured_on_the_parents_grid(tuned: Path) -> None:
    parent = esr.open(str(tuned))
    data = tuned / "fine-tuning"
    summary = json.loads((data / "data.json").read_text())
    (held_out,) = summary["held_out_prompts"]
    examples, ordinary = read_examples(data / "examples.jsonl"), read_examples(data / "ordinary.jsonl")
    assert len(examples) == summary["self_correction"] > 0
    assert all(e.corrects_itself for e in examples)
    assert not any(e.corrects_itself for e in ordinary)
    assert held_out not in {e.prompt for e in (*examples, *ordinary)}
    assert {e.prompt for e in read_examples(data / "held-out.jsonl")} == {held_out}
    assert any(segment.text.startswith(" wait , no .") for e in examples for segment in e.segments[1:])
    for share in (0, 80):
        own = share_folder(tuned, share)
        opened = esr.open(str(own))
        assert opened.config.subject.adapter == str((own / "adapter").resolve())
        assert opened.config.seed == parent.config.seed
        assert json.loads((own / "mix.json").read_text())["self_correction"] == share // 10
        usable = set(parent.calibration.dropna(subset=["threshold"])["direction"])
        assert set(opened.directions["id"]) == usable
        mine, theirs = opened.trials, parent.trials
        cells = ["condition", "direction", "prompt_index", "seed", "prompt"]
        both = mine[cells].merge(theirs[cells])
        assert len(both) == len(mine) > 0  # the same directions, prompts and seeds
        assert set(mine["condition"]) == {"incidence", "no-steering"}
        losses = [json.loads(path.read_text())["nats"] for path in (data / "base-quality.json", own / "quality.json")]
        assert not np.allclose(*losses, rtol=1e-6)  # its own model answered


def test_the_table_is_what_the_studies_say(tuned: Path) -> None:
    frame = dose_response(tuned)
    assert frame["share"].tolist() == [0.0, 0.0, 0.8]
    assert frame["adapter"].tolist() == [False, True, True]
    parent = esr.open(str(tuned))
    for row, folder in zip(
        frame.to_dict("records"), (tuned, share_folder(tuned, 0), share_folder(tuned, 80)), strict=True
    ):
        trials = esr.open(str(folder)).trials
        steered, plain = (trials[trials["condition"] == c] for c in ("incidence", "no-steering"))
        assert row["n_trials"] == len(steered)
        assert row["n_unscored"] == (steered["state"] != "scored").sum()
        assert row["n_degraded"] == steered["degraded"].sum()
        assert row["multi_attempt_rate"] == pytest.approx(steered["multi_attempt"].sum() / row["n_scored"])
        assert row["unsteered_first_score"] == pytest.approx(plain["first_score"].mean())
        summary = summarise(trials, seed=3).set_index("condition").loc["incidence"]
        assert row["mean_first_score_low"] == summary["mean_first_score_low"]
        if row["adapter"]:
            both = plain.merge(
                parent.trials.query("condition == 'no-steering'"), on=["direction", "prompt_index", "seed"]
            ).dropna(subset=["first_score_x", "first_score_y"])
            assert row["quality_difference_pairs"] == len(both)
            assert row["quality_difference"] == pytest.approx((both["first_score_x"] - both["first_score_y"]).mean())
            assert row["perplexity_ratio"] == pytest.approx(row["perplexity"] / frame["perplexity"][0])
            record = json.loads((folder / "adapter" / "training.json").read_text())
            assert row["final_loss"] == record["epochs"][-1]
        else:
            assert np.isnan(row["quality_difference"])
    held_out = json.loads((tuned / "fine-tuning" / "data.json").read_text())["held_out_prompts"]
    part = parent.trials[parent.trials["condition"].eq("incidence") & parent.trials["prompt"].isin(held_out)]
    assert dose_response(tuned, "held out")["n_trials"][0] == len(part) > 0


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(Kill("trials", 1, 4), marks=pytest.mark.slow),  # of the parent
        pytest.param(Kill("answers", 1, 1), marks=pytest.mark.slow),
        pytest.param(Kill("training 0 %", 1, 12), marks=pytest.mark.slow),
        pytest.param(Kill("calibration", 2, 3), marks=pytest.mark.slow),
        pytest.param(Kill("training 80 %", 1, 20), marks=pytest.mark.slow),  # before its last epoch is stored
        Kill("trials", 3, 2),
    ],
    ids=lambda kill: f"{kill.stage} {kill.times}",
)
def test_stopped_anywhere_and_run_again_the_table_is_the_same(study: Path, tuned: Path, kill: Kill) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(study, kill)
    tune(study)
    pd.testing.assert_frame_equal(dose_response(study), dose_response(tuned), check_exact=True)


def test_what_is_done_is_not_done_again(tuned: Path) -> None:
    stamps = {p: p.stat().st_mtime_ns for p in tuned.rglob("adapter_model.safetensors")}
    tune(tuned, NoWork())
    assert stamps == {p: p.stat().st_mtime_ns for p in tuned.rglob("adapter_model.safetensors")}


class NoWork(Silent):
    """Fails when anything is generated or trained."""

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        assert tokens == 0


def test_more_shares_are_added(study: Path) -> None:
    tune(study, shares=(80,))
    first = dose_response(study).iloc[-1].drop("multi_attempt_difference_p_holm")
    tune(study, shares=(20, 80))
    both = dose_response(study)
    assert both["share"].tolist() == [0.0, 0.2, 0.8]
    pd.testing.assert_series_equal(both.iloc[-1].drop("multi_attempt_difference_p_holm"), first, check_names=False)


def test_settings_do_not_change_once_there_are_examples(tuned: Path) -> None:
    for changed in ({"examples": 12}, {"training": TUNING["training"] | {"rank": 3}}, {"source": "study"}):
        with pytest.raises(UserError, match="do not change"):
            tune(tuned, **changed)
    (tuned / "restarts.txt").write_text("wait .\n")
    with pytest.raises(UserError, match=r"do not change.*files"):
        tune(tuned)
    (tuned / "restarts.txt").write_text(RESTARTS)
    config = read_config(tuned)
    held = read_settings(tuned, config, shares=(20,))  # what is not said is as it was
    assert (held.examples, held.training.rank, held.shares) == (10, 2, (20,))
    written = config.model_copy(update={"experiment": {"fine-tuning": {"examples": 50, "training": {"rank": 3}}}})
    asked = read_settings(tuned, written)
    assert (asked.examples, asked.training.rank, asked.training.epochs) == (50, 3, 2)


def test_examples_of_a_file(study: Path) -> None:
    def one(prompt: str, *segments: tuple[str, bool]) -> Example:
        return Example(prompt=prompt, segments=tuple(Segment(text=t, train=train) for t, train in segments))

    prompts = [line for line in (study / "prompts.txt").read_text().splitlines() if line]
    mine = [one(p, ("the cat", False), (" wait , bread", True)) for p in [*prompts, "a question of my own"]]
    mine += [one("unknown words", ("zeppelin", False), (" wait", True)), one(prompts[0], ("bread", True))]
    mine += [one(p, ("water and bread", True)) for p in prompts]
    write_examples(study / "mine.jsonl", mine)
    tune(study, data="mine.jsonl", shares=(50,))
    data = study / "fine-tuning"
    summary = json.loads((data / "data.json").read_text())
    (held_out,) = summary["held_out_prompts"]
    assert summary["self_correction"] == 3  # not the one to the prompt held out, nor the one with unknown words
    assert summary["left_out"] == {"file: special or unknown tokens": 1}
    assert {e.text for e in read_examples(data / "ordinary.jsonl")} <= {"bread", "water and bread"}
    assert held_out not in {e.prompt for e in read_examples(data / "ordinary.jsonl")}
    assert json.loads((share_folder(study, 50) / "mix.json").read_text())["self_correction_distinct"] == 3


def test_what_stands_in_the_way_is_said_before_any_work(study: Path) -> None:
    for changed, message in (
        ({"source": "judge"}, "written by a language model"),
        ({"data": "missing.jsonl"}, "can be read"),
        ({"restarts": "missing.txt"}, "readable"),
    ):
        with pytest.raises(UserError, match=message):
            tune(study, **changed)
    config = read_config(study)
    adapted = config.model_copy(update={"subject": config.subject.model_copy(update={"adapter": "somewhere"})})
    with pytest.raises(UserError, match="no adapter yet"):
        run_fine_tuning(study, adapted, Silent(), FineTuneSettings.model_validate(TUNING))
    assert not (study / "study.sqlite").exists()
    with pytest.raises(UserError, match="at least one finished share"):
        dose_response(study)
    for wrong in ((), (10, 10), (101,), (-1,)):
        with pytest.raises(UserError, match="different whole per cents"):
            read_settings(study, config, shares=wrong)


def test_a_study_without_episodes_gives_none(study: Path) -> None:
    with pytest.raises(UserError, match="at least one self-correction example"):
        tune(study, source="study")


def test_the_study_of_an_adapter_is_not_altered(tuned: Path) -> None:
    path = share_folder(tuned, 80) / "study.toml"
    before = path.read_text()
    path.write_text(before.replace("batch_size = 32", "batch_size = 16"))
    adapter_study(Study.open(tuned), 80)
    path.write_text(before.replace("per_direction = 3", "per_direction = 2"))
    with pytest.raises(UserError, match="parent's settings"):
        adapter_study(Study.open(tuned), 80)
    path.write_text(before)


def test_vectors_and_files_of_the_parent(
    tmp_path: Path, tiny_model_folder: Callable[..., Path], tiny_sae_folder: Callable[..., Path]
) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    study = new_study(
        tmp_path / "study", tiny_model_folder("llama"), tiny_sae_folder("standard"), count=2, vectors="v.safetensors"
    )
    save_file({f"v{i}": rng.normal(size=64).astype(np.float32) for i in range(5)}, study / "v.safetensors")
    tune(study, shares=(80,))
    own, parent = esr.open(str(share_folder(study, 80))), esr.open(str(study))
    assert set(own.directions["id"]) == set(parent.calibration.dropna(subset=["threshold"])["direction"])
    assert own.config.prompts.file == "../../prompts.txt"
    assert set(own.trials["direction"]) <= set(parent.directions["id"])


def test_the_plan_counts_the_parent_and_every_share(study: Path, tuned: Path) -> None:
    config, chosen = read_config(study), FineTuneSettings.model_validate(TUNING)
    calls = {
        shares: plan_fine_tuning(study, config, chosen.model_copy(update={"shares": shares})).judge_calls
        for shares in ((80,), (0, 80), (0, 20, 80))
    }
    each = calls[0, 80] - calls[80,]
    assert each == calls[0, 20, 80] - calls[0, 80] > 0
    assert calls[80,] == 2 * each  # the parent is one more
    after = plan_fine_tuning(tuned, read_config(tuned), chosen)
    assert (after.judge_calls, after.dollars) == (0, 0)
    assert after.stored > 0
    written = plan_fine_tuning(study, config, chosen.model_copy(update={"source": "judge", "examples": 100}))
    assert written.judge_calls == calls[0, 80] + 80  # enough for the largest share
