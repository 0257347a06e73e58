"""What every setting of a study means, read from the records that define them: nothing is written down twice."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from esr.studies.mistakes import models_of

_BOUNDS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))
_KINDS = {str: '"text"', int: "number", float: "number", bool: "true or false"}


@dataclass(frozen=True)
class Explained:
    """One setting, or a table of settings."""

    name: str
    text: str
    """What it means, in one paragraph; empty when its record does not say."""
    allowed: str
    """Choices and bounds in words; empty when there are none."""
    default: Any
    """Its value when it is not set; None also where it has none."""
    required: bool
    """Whether there is no default."""
    kind: str
    """What a value looks like, for a setting without one."""
    table: type[BaseModel] | None
    """The record of the settings inside, when it is a table."""


def explained(record: type[BaseModel]) -> Iterator[Explained]:
    """The settings of a record, in its order."""
    texts = docstrings(record)
    for name, field in record.model_fields.items():
        yield Explained(
            name,
            texts.get(name, ""),
            _allowed(field),
            None if field.is_required() else field.get_default(call_default_factory=True, validated_data={}),
            field.is_required(),
            _kind(field.annotation),
            next(models_of(field.annotation), None),
        )


@cache
def docstrings(record: type[BaseModel]) -> dict[str, str]:
    """The texts that stand below the fields of a record and of those it inherits from, by field, without markup.
    A record whose source Python does not have gives none."""
    found: dict[str, str] = {}
    for base in reversed(record.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):  # an experiment of one's own, typed at a prompt or given to `python -c`
            continue
        body = ast.parse(textwrap.dedent(source)).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                found[field.target.id] = " ".join(below.value.value.split()).replace("``", "`")
    return found


def _allowed(field: FieldInfo) -> str:
    choices = [str(value) for value in _choices(field.annotation)]
    bounds = [f"{words} {getattr(rule, name)}" for rule in field.metadata for name, words in _BOUNDS
              if isinstance(getattr(rule, name, None), (int, float))]  # fmt: skip
    return " | ".join(choices) if choices else ", ".join(bounds)


def _choices(annotation: Any) -> Iterator[object]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif get_origin(annotation) is not tuple:
        for part in get_args(annotation):
            yield from _choices(part)


def _kind(annotation: Any) -> str:
    """``number``, ``"text"``, ``[number, ...]``: what to put in place of a value."""
    if annotation in _KINDS:
        return _KINDS[annotation]
    if get_origin(annotation) in (tuple, list):
        return f"[{_kind(get_args(annotation)[0])}, ...]"
    kinds = [_kind(part) for part in get_args(annotation) if part not in (type(None), ...)]
    return " or ".join(dict.fromkeys(kinds)) or '"text"'
