"""A commented study.toml for a new study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from esr.errors import UserError
from esr.studies.config import StudyConfig, read_config

_COMMENTS = {
    "": "The settings of one study. All but [engine] and experiments are fixed once it has results.",
    "subject": "What is measured. `preset` fills in a published or bundled subject (see `esr subjects`).\n"
    "# Paths in this section are absolute, or relative to where you run esr.",
    "sampling": "How responses are drawn.",
    "prompts": "file: one prompt per line, or how-to, how-to-held-out, organism. Each direction meets per_direction.",
    "directions": "What is steered with. relevance and concreteness: paper, released (the published code) or none.",
    "calibration": "Finds each direction's threshold: the boost whose mean first-attempt score meets the target.",
    "judge": "Who grades. `rule` needs no network.",
    "engine": "How it is computed; may change between runs.",
    "experiment": "Settings of experiments by key (see the documentation); fixed once the experiment has run.",
}


def write_study(folder: Path, settings: Mapping[str, object]) -> StudyConfig:
    """Make ``folder`` with a study.toml of these settings and return them validated.

    Raises UserError when the folder already holds a study, cannot be written, or a setting is wrong (nothing is left
    behind then).
    """
    path = folder / "study.toml"
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(toml(settings))
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


def toml(settings: Mapping[str, object]) -> str:
    """Settings as TOML, with a comment above each section. Values: text, numbers, flags, lists, one level of tables
    and inline tables below."""
    plain = {k: v for k, v in settings.items() if not isinstance(v, Mapping)}
    lines = [f"# {_COMMENTS['']}", *_assignments(plain)]
    for name, table in settings.items():
        if isinstance(table, Mapping):
            lines += ["", f"# {_COMMENTS[name]}", f"[{name}]", *_assignments(table)]
    return "\n".join(lines) + "\n"


def _assignments(table: Mapping[str, object]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]


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
