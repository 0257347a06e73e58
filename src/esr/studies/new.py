"""A new study's study.toml: what was chosen, and every other setting with its default and what it means."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from esr.errors import UserError
from esr.studies.config import StudyConfig, read_config, with_preset
from esr.studies.experiments.registry import experiments
from esr.studies.explained import explained

_HEAD = """The settings of one study. A setting behind # has its default: take the # away to set it.
All but [engine], experiments and how the judge is reached are fixed once the study has thresholds; those of an
experiment are fixed once it has run. `esr check STUDY` says whether they can work, `esr plan STUDY` what they take."""
_ABOUT = {
    "subject": "What is measured. Paths in this section are absolute, or relative to where you run esr.",
    "subject.sae": "The SAE whose latents are directions: release and id as SAELens has them, or path.",
    "sampling": "How responses are drawn.",
    "prompts": "What is asked.",
    "directions": "What is steered with.",
    "calibration": "Finds each direction's threshold: the boost whose mean first-attempt score meets the target.",
    "judge": "Who grades. rule needs no network.",
    "engine": "How it is computed; may change between runs.",
    "experiment": "Settings of experiments, one table each.",
}
_PRESET = "Fills in a published or bundled subject (see `esr subjects`): what stands below is then its default."


def write_study(folder: Path, settings: Mapping[str, object]) -> StudyConfig:
    """Make ``folder`` with a study.toml of these settings and return them validated.

    Raises UserError when the folder already holds a study, cannot be written, or a setting is wrong (nothing is left
    behind then).
    """
    path = folder / "study.toml"
    made = not folder.exists()
    try:
        text = commented(settings).encode()
    except UnicodeEncodeError:
        raise UserError("settings are text that a file can hold", "a lone surrogate in one of them") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(text)
    except FileExistsError:
        raise UserError("a new study starts in a folder without one", str(folder), "Choose another folder") from None
    except OSError as error:
        raise UserError("the study's folder can be made", f"{error.strerror}: {folder}") from None
    try:
        return read_config(folder)
    except UserError:
        path.unlink()
        if made:
            folder.rmdir()
        raise


def commented(settings: Mapping[str, object]) -> str:
    """``toml(settings)`` among all settings there are, each with what it means; those not given are commented out, with
    the default they have (the preset's, where there is one). A name that is no setting stands at the end of its table,
    for validation to find."""
    defaults = with_preset(dict(settings))
    lines = [*_comment(_HEAD)]
    named = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in settings.items() if isinstance(value, Mapping)}
    lines += _settings(StudyConfig, named, {})
    for setting in explained(StudyConfig):
        if setting.name == "experiment":
            lines += _experiments(tables.pop("experiment", {}))
        elif setting.table is not None:
            known = defaults.get(setting.name)
            lines += _table(setting.name, setting.table, tables.pop(setting.name, None),
                            known if isinstance(known, Mapping) else {}, always=True)  # fmt: skip
    if tables:
        lines += ["", toml(tables)]
    return "\n".join(lines).rstrip() + "\n"


def _table(
    name: str, record: type[BaseModel], given: object, defaults: Mapping[str, object], *, always: bool = False
) -> Iterator[str]:
    """One table, and those inside it below it."""
    values = given if isinstance(given, Mapping) else {}
    yield ""
    if name in _ABOUT:
        yield from _comment(_ABOUT[name])
    yield f"[{name}]" if always or given is not None else f"#[{name}]"
    if name == "subject":
        yield ""
        yield from _comment(_PRESET)
        preset = values.get("preset")
        yield '#preset = "text"' if preset is None else f"preset = {_value(preset)}"
        values = {key: value for key, value in values.items() if key != "preset"}
    yield from _settings(record, values, defaults)
    for setting in explained(record):
        if setting.table is not None:
            inner = defaults.get(setting.name)
            yield from _table(f"{name}.{setting.name}", setting.table, values.get(setting.name),
                              inner if isinstance(inner, Mapping) else {})  # fmt: skip


def _settings(record: type[BaseModel], given: Mapping[str, object], defaults: Mapping[str, object]) -> Iterator[str]:
    """The settings of one record that are no tables."""
    left = dict(given)
    for setting in explained(record):
        if setting.table is not None or (record is StudyConfig and setting.name == "experiment"):
            left.pop(setting.name, None)
            continue
        about = setting.text
        if setting.allowed and not all(f"`{word}`" in about for word in setting.allowed.split(" | ")):
            about = f"{about} ({setting.allowed})".lstrip()
        yield ""
        yield from _comment(about)
        value = left.pop(setting.name, None)
        default = defaults.get(setting.name, setting.default)
        if value is not None:
            yield f"{setting.name} = {_value(value)}"
        elif default is not None:
            yield f"#{setting.name} = {_value(default)}"
        else:
            yield f"#{setting.name} = {setting.kind}"
    yield from _assignments(left)


def _experiments(given: Mapping[str, object]) -> Iterator[str]:
    yield ""
    yield from _comment(_ABOUT["experiment"])
    left = dict(given)
    for key, experiment in experiments().items():
        if experiment.settings.model_fields and isinstance(left.get(key, {}), Mapping):
            yield from _table(f"experiment.{key}", experiment.settings, left.pop(key, None), {})
    if left:  # no experiment has that key, or no settings: validation says so
        yield from ("", "[experiment]", *_assignments(left))


def _comment(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from textwrap.wrap(line, 118, initial_indent="# ", subsequent_indent="# ")


def toml(settings: Mapping[str, object]) -> str:
    """Settings as TOML. Values: text, numbers, flags, lists, one level of tables and inline tables below."""
    lines = _assignments({k: v for k, v in settings.items() if not isinstance(v, Mapping)})
    for name, table in settings.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(name)}]", *_assignments(table)]
    return "\n".join(lines) + "\n"


def _assignments(table: Mapping[str, object]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None]


def _key(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    return name if bare else _value(name)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_assignments(value)) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for surrogate pairs, so nothing is escaped that need not be
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)
