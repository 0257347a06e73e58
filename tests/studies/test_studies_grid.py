"""The grid, conditions, settings, and what a run makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_folders import make_study, settings

import esr
from esr.errors import UserError
from esr.steering.interventions import Add, Clamp
from esr.studies.asking import Asker
from esr.studies.conditions import Condition
from esr.studies.config import parse_config, read_config
from esr.studies.grid import Cell, content_key, draw_cells, generator
from esr.studies.new import toml
from esr.studies.progress import Silent
from esr.studies.runner import run_study
from esr.studies.selecting import Candidates, Exclusion


def test_prompts_are_drawn_without_replacement() -> None:
    cells = draw_cells(1, "trials", ["a", "b"], n_prompts=8, per_direction=5)
    for direction in (0, 1):
        prompts = [c.prompt_index for c in cells if c.direction == direction]
        assert len(set(prompts)) == 5
    more = [c.prompt_index for c in draw_cells(1, "trials", ["a"], n_prompts=3, per_direction=7)]
    assert sorted(np.bincount(more)) == [2, 2, 3]  # fewer prompts than cells: as even as can be


def test_a_directions_cells_do_not_depend_on_its_neighbours() -> None:
    alone = draw_cells(1, "trials", ["b"], 8, 5)
    among = [c for c in draw_cells(1, "trials", ["a", "b", "c"], 8, 5) if c.direction == 1]
    assert [(c.prompt_index, c.seed) for c in alone] == [(c.prompt_index, c.seed) for c in among]
    other = draw_cells(2, "trials", ["b"], 8, 5)
    assert [c.seed for c in alone] != [c.seed for c in other]


def test_named_generators_are_reproducible_and_distinct() -> None:
    assert generator(1, "x").integers(1000, size=5).tolist() == generator(1, "x").integers(1000, size=5).tolist()
    assert generator(1, "x").integers(1000, size=5).tolist() != generator(1, "y").integers(1000, size=5).tolist()
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})


def test_toml_round_trip(tmp_path: Path) -> None:
    import tomllib

    values = {
        "name": 'quote " and \\ and \u2028',
        "n": 3,
        "subject": {"x": [1.5, -2.0], "y": {"path": "a b"}, "z": True},
    }
    assert tomllib.loads(toml(values)) == values


def test_a_preset_fills_in_and_the_user_wins() -> None:
    config = parse_config(
        {"name": "x", "subject": {"preset": "gemma-2-2b/released"}, "sampling": {"temperature": 0.1}}, "here"
    )
    assert config.subject.model == "google/gemma-2-2b-it"
    assert (config.subject.steer_layer, config.sampling.temperature) == (16, 0.1)
    assert config.sampling.repetition_penalty == 1.1
    assert (config.calibration.prior_mean, config.calibration.prior_sd, config.calibration.upper) == (150, 75, 300)


def test_every_wrong_setting_is_named() -> None:
    with pytest.raises(UserError, match=r"sampling.top_p.*seed.*|seed.*sampling.top_p"):
        parse_config({"name": "x", "seed": -1, "subject": {"preset": "organism"}, "sampling": {"top_p": 2}}, "here")


def test_a_template_needs_its_prompt() -> None:
    with pytest.raises(UserError, match=r"contains \{prompt\}"):
        Condition("x", template="no place for it")


@pytest.fixture
def asker(tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any, tiny_subject: Any) -> Asker:
    config = make_study(tmp_path, settings(tiny_model_folder("llama"), tiny_sae_folder("standard")))
    return Asker(config, tiny_subject(), ("How do i bake {bread}?",))


def test_a_task_says_exactly_what_is_done(asker: Asker, tmp_path: Path) -> None:
    direction = Candidates(asker, tmp_path).direction(7)
    condition = Condition("c", template="{prompt} stay on topic .", boost_factor=2.0, clamps=((3, 0.0),))
    task = asker.task("trial", condition, Cell(0, 0, 11), direction, 4.0, share_of_length=0.5)
    add, clamp = sorted(task.request.interventions, key=lambda i: isinstance(i, Clamp))
    assert isinstance(add, Add)
    assert (add.boost, add.layer, add.direction) == (4.0, 1, direction)
    assert clamp == Clamp(3, 0.0, 1)
    assert task.request.sampling.max_new_tokens == 12
    assert task.request.seed == 11
    assert task.prompt == "How do i bake {bread}?"  # the judge sees the bare prompt
    subject = asker.subject
    expected = esr.chat_ids(subject, subject.spec, "How do i bake {bread}? stay on topic .")
    assert task.request.prompt_ids == expected
    assert asker.task("trial", Condition("off"), Cell(0, 0, 11), direction, 0.0).request.interventions == ()


def test_decoder_rows_are_used_as_stored(asker: Asker, tmp_path: Path) -> None:
    row = asker.subject.require_reader().sae.W_dec[7].detach().numpy()
    np.testing.assert_array_equal(Candidates(asker, tmp_path).direction(7).vector, row)


def test_a_run_reads_back_as_a_frame(tmp_path: Path, tiny_model_folder: Any, tiny_sae_folder: Any) -> None:
    from esr.analysis.trials import COLUMNS

    make_study(tmp_path, settings(tiny_model_folder("llama"), tiny_sae_folder("standard")))
    config = read_config(tmp_path)
    run_study(tmp_path, config, config.experiments, Silent())
    study = esr.open(str(tmp_path))
    trials = study.trials
    own = {"threshold", "source", "prefix", "prefix_tokens", "prefix_restarted", "judged_from", "response"}
    assert set(COLUMNS) | own == set(trials.columns)
    assert set(trials["condition"]) == {"incidence", "no-steering"}
    steered, plain = (trials[trials["condition"] == c] for c in ("incidence", "no-steering"))
    assert (steered["boost"] == steered["threshold"]).all()
    assert (plain["boost"] == 0).all()
    place = ["direction", "prompt_index", "seed"]
    assert steered[place].values.tolist() == plain[place].values.tolist()  # paired: the same grid
    calibrated = study.calibration.query("status == 'calibrated'")
    assert set(trials["direction"]) == set(calibrated["direction"])
    assert (trials.groupby(["condition", "direction"]).size() == config.prompts.per_direction).all()
    assert list(study.exclusions["step"]) == ["dead", "relevance", "sample"]
    exclusions = [Exclusion(*row) for row in study.exclusions.itertuples(index=False)]
    assert exclusions[1] == Exclusion("relevance", exclusions[1].rule, 20, exclusions[0].left - 20)
    summary = esr.summarise(trials)
    assert set(summary["condition"]) == {"incidence", "no-steering"}


def test_everything_that_determines_a_response_is_in_its_key() -> None:
    """Change one thing at a time: no two requests share a key; the id alone changes nothing."""
    one, other = (esr.Direction("d", np.full(4, x, np.float32)) for x in (1.0, 2.0))
    base = esr.Request("a", (1, 2), (esr.Add(one, 1.0, 1), esr.Clamp(3, 0.0, 1)), esr.Sampling(), seed=5)
    adds = [esr.Add(one, 2.0, 1), esr.Add(one, 1.0, 2), esr.Add(one, 1.0, 1, esr.Schedule(0)), esr.Add(other, 1.0, 1)]
    clamps = [esr.Clamp(4, 0.0, 1), esr.Clamp(3, 1.0, 1), esr.Clamp(3, 0.0, 2), esr.Clamp(3, 0.0, 1, esr.Schedule(0))]
    samplings = [
        esr.Sampling(temperature=0.7), esr.Sampling(top_p=0.9), esr.Sampling(repetition_penalty=1.1),
        esr.Sampling(penalty_over="generated"), esr.Sampling(max_new_tokens=9),
    ]  # fmt: skip
    changed = [
        base,
        replace(base, prompt_ids=(1, 3)),
        replace(base, prefill_ids=(2,)),
        replace(base, prompt_ids=(1,), prefill_ids=(2,)),
        replace(base, seed=6),
        replace(base, clamp_reads="steered"),
        *(replace(base, interventions=(add, base.interventions[1])) for add in adds),
        *(replace(base, interventions=(base.interventions[0], clamp)) for clamp in clamps),
        *(replace(base, sampling=sampling) for sampling in samplings),
    ]
    keys = [content_key(request.describe()) for request in changed]
    assert len(set(keys)) == len(keys)
    assert content_key(replace(base, id="b").describe()) == keys[0]
