"""esr new: every setting is in study.toml with what it means, and what is left alone has its default."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from esr.errors import UserError
from esr.studies.config import StudyConfig, parse_config, read_config
from esr.studies.experiments.registry import experiments
from esr.studies.explained import explained
from esr.studies.new import commented, write_study

MINIMAL = {"name": "x", "subject": {"preset": "organism"}}


def every_setting(record: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, what it means) of every setting there is, the experiments' included."""
    for setting in explained(record):
        if setting.table is not None:
            yield from every_setting(setting.table, f"{path}{setting.name}.")
        elif setting.name != "experiment":
            yield f"{path}{setting.name}", setting.text
    if record is StudyConfig:
        for key, experiment in experiments().items():
            yield from every_setting(experiment.settings, f"experiment.{key}.")


def test_every_setting_means_something() -> None:
    settings = dict(every_setting(StudyConfig))
    assert len(settings) > 80
    assert not [name for name, text in settings.items() if len(text) < 10]


def uncommented(text: str) -> dict[str, object]:
    """The file with every commented setting in force; one without a default is left out."""
    lines = [line.removeprefix("#") if re.match(r"#(\w|\[)", line) else line for line in text.splitlines()]
    no_default = re.compile(r'[\w-]+ = (\[*number.*|"text".*|\["text".*)')
    return tomllib.loads("\n".join(line for line in lines if not no_default.fullmatch(line)))


def test_every_setting_stands_in_the_file_with_its_default() -> None:
    text = commented(MINIMAL)
    names = re.findall(r"^#?([\w-]+) = ", text, re.M)
    for name, _ in every_setting(StudyConfig):
        assert name.rsplit(".", 1)[-1] in names
    given, whole = parse_config(tomllib.loads(text), "here"), uncommented(text)
    assert parse_config(whole, "here").locked() == given.locked() == parse_config(MINIMAL, "here").locked()
    for key, experiment in experiments().items():
        assert experiment.settings.model_validate(whole["experiment"].get(key, {})) == experiment.settings()  # type: ignore[attr-defined]


def test_a_preset_s_values_are_shown_as_the_defaults() -> None:
    text = commented({"name": "x", "subject": {"preset": "gemma-2-2b/released"}, "sampling": {"temperature": 0.1}})
    assert "\n#steer_layer = 16\n" in text
    assert "\n#repetition_penalty = 1.1\n" in text
    assert "\ntemperature = 0.1\n" in text
    assert "\n#upper = 300\n" in text


def test_what_is_given_is_read_back(tmp_path: Path) -> None:
    settings = {
        "name": "x",
        "subject": {"model": "m", "steer_layer": 3, "sae": {"release": "r", "id": "layer_3/x"}},
        "calibration": {"upper": 9.0, "prior_mean": 3.0, "prior_sd": 1.0},
        "experiment": {"boost-sweep": {"factors": [0.5]}, "fine-tuning": {"training": {"rank": 4}}},
    }
    config = write_study(tmp_path / "a", settings)
    assert config == read_config(tmp_path / "a") == parse_config(settings, "here")
    assert {name: table for name, table in tomllib.loads(commented(settings)).items() if table} == settings


def test_a_mistake_leaves_nothing_behind(tmp_path: Path) -> None:
    wrong = ({"judge": {"nmae": "rule"}}, {"expriment": {"a": {"b": 1}}}, {"name": "\ud800"},
             {"experiment": {"bost-sweep": {"by": "factor"}}}, {"experiment": {"branch": 3}})  # fmt: skip
    for settings in ({"nmae": "x"}, *(MINIMAL | some for some in wrong)):
        with pytest.raises(UserError):
            write_study(tmp_path / "s", settings)
        assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": {"cuont": 2}}, "directions.cuont: there is no such setting; nearest: count"),
        ({"sampling": {"per_direction": 2}}, "there is no such setting here; per_direction belongs to [prompts]"),
        ({"judge": {"zzz": 2}}, "judge.zzz: there is no such setting; there are name, rubric, "),
        ({"directions": {"relevance": "papr"}}, "is one of paper, released, none; nearest: paper (got 'papr')"),
        ({"prompts": {"per_direction": -2}}, "prompts.per_direction: is at least 1 (got -2)"),
        ({"sampling": {"top_p": "a"}}, "sampling.top_p: is a number (got 'a')"),
        ({"directions": {"latents": ["a"]}}, "directions.latents.0: is a whole number (got 'a')"),
        ({"directions": 3}, "directions: is a table of settings (got 3)"),
        ({"experiment": {"bost-sweep": {}}}, "Did you mean boost-sweep?"),
        ({"experiment": {"boost-sweep": {"factorz": [1]}}}, "factorz: there is no such setting; nearest: factors"),
        ({"experiment": {"fine-tuning": {"training": {"targets": 4}}}}, "is text in quotes or a list in [ ] (got 4)"),
        ({"subject": {"preset": "organsm"}}, "Did you mean organism?"),
        ({"subject": {}}, "subject.model: is not set"),
        ({"name": ""}, "name: has at least 1 characters"),
        ({"subject": {"preset": "organism", "sae": {"pth": "x"}}}, "sae.pth: there is no such setting; nearest: path"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_our_words(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config(MINIMAL | change, "here")
    assert message in str(caught.value)
    assert "Input should" not in str(caught.value)
    assert "Extra inputs" not in str(caught.value)


def test_settings_typed_at_a_prompt_have_no_texts_and_are_written_all_the_same() -> None:
    typed: dict[str, type[BaseModel]] = {}
    exec("from pydantic import BaseModel\nclass Typed(BaseModel):\n    n: int = 3\n    'Meaning.'\n", typed)
    (setting,) = explained(typed["Typed"])
    assert (setting.name, setting.text) == ("n", "")
