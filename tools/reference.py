"""Write the parts of the documentation that are the code's own words: settings, columns, commands and their options.

A page marks such a part with ``<!-- generated: NAME -->`` and ``<!-- end -->``; what stands between is replaced.
tests/docs checks that nothing is out of date.
Run from the repository's root: python tools/reference.py
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

FIRST = tuple(
    f"esr {name}"
    for name in ("demo", "subjects", "experiments", "new", "check", "plan", "run", "status", "show", "report")
)
"""The commands in the order one needs them; the others follow by name."""
MARKED = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def cell(text: object) -> str:
    """Text as a cell of a Markdown table."""
    return re.sub(r"\s+", " ", str(text)).replace("``", "`").replace("|", "\\|").strip()


def described(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field, of the class and those it inherits from."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not (isinstance(cls, type) and issubclass(cls, BaseModel) and cls is not BaseModel):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                found[field.target.id] = str(text.value.value)
    return found


PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", dict: "table"}


def type_name(annotation: Any) -> str:
    """A field's type as one writes it in TOML."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is Annotated:
        return type_name(inner[0])
    if origin is tuple:
        return f"list of {type_name(inner[0])}s"
    if origin in (Union, UnionType):
        return " or ".join(type_name(one) for one in inner if one is not NoneType)
    return PLAIN.get(origin or annotation, str(annotation))


def settings_table(model: type[BaseModel]) -> list[str]:
    """One row per setting: name, default, meaning."""
    words = described(model)
    lines = ["| setting | default | type | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if record(field.annotation):
            continue
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else "none" if default is None else f"`{toml(default)}`"
        meaning = words.get(name) or field.description or ""
        limits = ", ".join(limit for item in field.metadata if (limit := limit_of(item)))
        lines.append(f"| `{name}` | {cell(shown)} | {cell(type_name(field.annotation))} | {cell(meaning)}"
                     f"{f' ({limits})' if limits else ''} |")  # fmt: skip
    return lines


def limit_of(constraint: Any) -> str:
    """A bound of a field in words."""
    for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if (value := getattr(constraint, name, None)) is not None:
            return f"{sign} {value}"
    return ""


def toml(value: Any) -> str:
    """A default as study.toml writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, dict):
        return "{}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def sections(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The tables of study.toml with their records, the record's own first."""
    yield above, model
    for name, field in model.model_fields.items():
        if inner := record(field.annotation):
            yield from sections(inner, f"{above}.{name}".lstrip("."))


def record(annotation: Any) -> type[BaseModel] | None:
    """The record a field holds: a table of its own."""
    for inner in (annotation, *get_args(annotation)):
        if inspect.isclass(inner) and issubclass(inner, BaseModel):
            return inner
    return None


def first_words(model: type[BaseModel]) -> str:
    """The record's docstring in one line."""
    return cell(inspect.getdoc(model) or "")


def settings() -> list[str]:
    """Every setting of study.toml, section by section."""
    from esr.studies.config import StudyConfig

    lines: list[str] = []
    for name, model in sections(StudyConfig):
        lines += [f"## `[{name}]`" if name else "## At the top", "", first_words(model), "", *settings_table(model), ""]
    return lines


def experiment_settings() -> list[str]:
    """Every experiment's own settings."""
    from esr.studies.experiments.registry import experiments

    lines: list[str] = []
    for key, known in experiments().items():
        for name, model in sections(known.settings, key):
            lines += [f"### `{name}`", ""]
            lines += [*settings_table(model), ""] if model.model_fields else ["No settings.", ""]
    return lines


def trial_columns() -> list[str]:
    """The columns of the frame of trials."""
    from esr.analysis.trials import COLUMNS

    return ["| column | what it holds |", "|---|---|", *(f"| `{n}` | {cell(text)} |" for n, text in COLUMNS.items())]


def commands() -> list[str]:
    """Every command with its arguments and options."""
    from esr.cli.main import app

    found = dict(walk(typer.main.get_command(app), "esr"))
    ordered = [*(name for name in FIRST if name in found), *sorted(found.keys() - set(FIRST))]
    return [line for name in ordered for line in command_lines(name, found[name])]


def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """A command's subcommands with their full names, groups left out."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for key, sub in inner.items():
        if not sub.hidden:
            yield from walk(sub, f"{name} {key}")


def command_lines(name: str, command: Any) -> list[str]:
    """A command's section: what it does, its example, its arguments and options."""
    words = " ".join((command.help or "").split())
    text, _, example = words.partition("Example: ")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([name, *(argument_name(p) for p in arguments)])
    lines = [f"## `{usage}`", "", cell(text), ""]
    if example:
        lines += ["```text", example.strip(), "```", ""]
    options = [p for p in command.params if p.param_type_name == "option"]
    if options:
        lines += ["| option | meaning | default |", "|---|---|---|", *map(option_row, options), ""]
    return lines


def argument_name(argument: Any) -> str:
    """As in a line of usage: in brackets when it may be left out."""
    name = str(argument.metavar or argument.name).upper()
    return name if argument.required else f"[{name}]"


def option_row(option: Any) -> str:
    """An option as a row."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    default = option.default
    plain = default is None or default is False or callable(default) or repr(default) == "Sentinel.UNSET"
    return f"| {names} | {cell(option.help or '')} | {'' if plain else f'`{cell(default)}`'} |"


PARTS: dict[str, Callable[[], list[str]]] = {
    "settings": settings,
    "experiment-settings": experiment_settings,
    "trial-columns": trial_columns,
    "commands": commands,
}


def renewed(text: str) -> str:
    """A page with its generated parts as the code has them. Raises KeyError for a part that nobody makes."""
    return MARKED.sub(lambda m: f"{m[1]}\n{chr(10).join(PARTS[m[2]]()).strip()}\n\n{m[3]}", text)


def main() -> None:
    for page in sorted(Path("docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page}")


if __name__ == "__main__":
    sys.exit(main())
