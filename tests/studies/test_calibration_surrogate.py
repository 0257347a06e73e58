"""The surrogate: divergence against the slow definition, hints of known curves, and a study that uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_folders import contents, make_study, run, run_killed, settings
from typer.testing import CliRunner

from esr.errors import UserError
from esr.steering.divergence import divergence
from esr.steering.engine import Request
from esr.steering.hooks import hooked, residual_of
from esr.steering.interventions import Add, Direction
from esr.studies.calibration.records import CalibrationSettings
from esr.studies.calibration.surrogate import LEVELS, hints, surrogate_boosts
from esr.studies.config import read_config
from esr.studies.planning import plan_run
from esr.studies.store import Store
from esr.studies.study import Study

PROMPT, RESPONSE = (1, 9, 14, 23), (31, 8, 40, 12, 57, 20, 33)
TEXT = Request("text", PROMPT, prefill_ids=RESPONSE)


def slow(subject: Any, boost: float, vector: torch.Tensor) -> list[float]:
    """Two whole forward passes, one position after another."""

    def add(_module: Any, _args: Any, output: Any) -> Any:
        h = residual_of(output) + boost * vector
        return (h, *output[1:]) if isinstance(output, tuple) else h

    ids = torch.tensor([PROMPT + RESPONSE])
    with torch.no_grad():
        plain = subject.model(input_ids=ids).logits[0].double().softmax(-1)
        with hooked(subject.layers[1], add):
            moved = subject.model(input_ids=ids).logits[0].double().softmax(-1)
    kl, tv, drop = [], [], []
    for place in range(len(PROMPT) - 1, ids.shape[1] - 1):
        p, q = plain[place], moved[place]
        kl.append(float((p * (p / q).log()).sum()))
        tv.append(float((p - q).abs().sum() / 2))
        drop.append(float((p / q).log()[ids[0, place + 1]]))
    return [float(np.mean(values)) for values in (kl, tv, drop)]


@pytest.mark.parametrize("arch", ["llama", "gemma2", "gpt2"])
def test_divergence_is_the_slow_one_and_zero_without_steering(tiny_subject: Any, arch: str) -> None:
    subject = tiny_subject(arch)
    direction = Direction("d", subject.require_reader().direction(5))
    boosts = (0.0, 0.5, 2.0, 8.0)
    found = divergence(subject, TEXT, [(), *((Add(direction, b, 1),) for b in boosts)])
    assert found.shape == (5, 3)
    assert found[:2] == pytest.approx(0, abs=1e-6)
    for row, boost in zip(found[1:], boosts, strict=True):
        assert row == pytest.approx(slow(subject, boost, torch.from_numpy(direction.vector.copy())), rel=1e-3, abs=1e-6)
    assert (np.diff(found[1:, 1]) > 0).all()
    assert found[:, 1].max() <= 1
    again = divergence(subject, TEXT, [(), *((Add(direction, b, 1),) for b in boosts)])
    assert (again == found).all()


def test_what_cannot_be_read_is_refused(tiny_subject: Any) -> None:
    subject = tiny_subject("llama")
    with pytest.raises(UserError, match=r"over a response to a prompt. Got 0 response tokens"):
        divergence(subject, Request("text", PROMPT), [()])
    with pytest.raises(UserError, match="fits into the model's context"):
        divergence(subject, Request("text", PROMPT, prefill_ids=RESPONSE * 2000), [()])
    with pytest.raises(UserError, match="only the pooled method has use for a surrogate"):
        CalibrationSettings(method="bisection", surrogate=True, upper=9, prior_mean=3, prior_sd=2)


def test_hints_are_where_known_curves_reach_the_levels() -> None:
    """Powers of the boost are lines in the logs, so crossings are exact, beyond the boosts read as well."""
    boosts, scale = np.geomspace(2, 40, 9), np.array([4.0, 11.0, 60.0, 300.0])
    variation = 0.5 * (boosts / scale[:, None]) ** 1.5
    exact = np.log(scale) + np.log(np.array(LEVELS)[:, None] / 0.5) / 1.5
    found = hints(boosts, variation)
    inside = (exact > np.log(2) - 1) & (exact < np.log(40) + 1)
    assert inside.sum() > 12
    assert found[inside] == pytest.approx(exact[inside], abs=1e-6)
    assert (found <= np.log(40) + 1).all()
    assert (found >= np.log(2) - 1).all()


def test_hints_of_a_curve_that_falls_again_and_of_a_flat_one() -> None:
    boosts = np.array([1.0, 2.0, 4.0, 8.0])
    found = hints(boosts, np.array([[0.01, 0.3, 0.2, 0.5], [0.0, 0.0, 0.0, 0.0]]))
    assert np.isfinite(found).all()
    level = LEVELS.index(0.4)
    assert found[level, 0] == pytest.approx(np.log(4) + np.log(2) * np.log(4 / 3) / np.log(5 / 3))  # not before 4
    assert found[:, 1] == pytest.approx(np.log(8) + 1)


def test_boosts_to_read() -> None:
    assert surrogate_boosts(0, 60, 20, 3) == pytest.approx([2.5, np.sqrt(150), 60], rel=1e-5)
    assert surrogate_boosts(5, 60, 20, 2) == [5, 60]


def test_settings_of_a_surrogate_that_is_off_change_no_study() -> None:
    plain = CalibrationSettings(upper=9, prior_mean=3, prior_sd=2)
    assert "surrogate" not in json.dumps(plain.describe())
    assert plain.model_copy(update={"surrogate": True}).describe() == plain.describe() | {
        "surrogate": True,
        "surrogate_boosts": 12,
        "surrogate_texts": 10,
    }


@pytest.fixture
def values(tiny_model_folder: Any, tiny_sae_folder: Any) -> dict[str, Any]:
    reading = {"surrogate": True, "surrogate_boosts": 3, "surrogate_texts": 2}
    return settings(tiny_model_folder("llama"), tiny_sae_folder("standard"), calibration=reading)


def test_a_study_with_a_surrogate_killed_or_not(tmp_path: Path, values: dict[str, Any]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = make_study(whole, values)
    make_study(killed, {**values, "engine": {"batch_size": 7}})
    assert plan_run(whole, config, config.experiments).surrogate_passes == 4 * 3 * 2
    run(whole)
    run_killed(killed, 3, len(contents(whole)["trials"]))
    assert contents(killed) == contents(whole)

    study = Study.open(whole)
    assert len(study.surrogate) == 4 * 3
    assert study.surrogate["variation"].between(0, 1).all()
    found = study.calibration
    assert found["surrogate"].between(0, 20).all()
    assert set(found["stopped"]) <= {"narrow", "out of reach", "rounds spent"}
    assert plan_run(whole, read_config(whole), config.experiments).surrogate_passes == 0


def test_the_plan_says_what_the_surrogate_reads(tmp_path: Path, values: dict[str, Any]) -> None:
    from esr.cli.app import app

    make_study(tmp_path, values)
    said = CliRunner().invoke(app, ["plan", str(tmp_path)])
    assert said.exit_code == 0
    assert "The surrogate reads 24 texts" in " ".join(said.output.split())


def test_a_reading_is_of_one_study_and_replicas_read_the_same(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read at another temperature is read again."""
    pytest.importorskip("ray")
    directions = {"count": 4, "latents": [3, 5, 7, 9], "relevance": "none"}  # the same, whatever the temperature

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("esr.studies.runner.calibrate", stop)

    def read(study: Path, temperature: float, engine: dict[str, Any]) -> dict[str, Any]:
        """What the surrogate read of a study stopped before its calibration."""
        changed = values | {"directions": directions, "engine": engine}
        (study / "study.toml").unlink(missing_ok=True)
        make_study(study, changed | {"sampling": values["sampling"] | {"temperature": temperature}})
        with pytest.raises(KeyboardInterrupt):
            run(study)
        with Store.reading(study) as store:
            (found,) = store.records("surrogate").values()
        return found

    one, several = tmp_path / "one", {"replicas": 2, "batch_size": 4}
    first, other = read(one, 0.5, {}), read(one, 0.9, {})
    assert first["variation"] != other["variation"]
    assert read(tmp_path / "two", 0.9, several) == other
