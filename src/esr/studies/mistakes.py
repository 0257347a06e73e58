"""What is wrong with somebody's settings, in our own words, with the nearest name that exists."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text in quotes",
    "tuple": "a list in [ ]",
    "list": "a list in [ ]",
    "dict": "a table of settings",
    "model": "a table of settings",
    "finite": "a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"), "less_than": ("less than", "lt"),
}  # fmt: skip


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name somebody most likely meant, or None when none is near."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def meant(name: object, known: Iterable[str]) -> str:
    """``Did you mean X?`` and what is known."""
    names = list(known)
    near = nearest(name, names) if isinstance(name, str) else None
    return (f"Did you mean {near}? " if near else "") + f"Known: {', '.join(names)}"


def in_words(error: ValidationError, record: type[BaseModel]) -> str:
    """Every mistake in settings of ``record``: which setting, the rule it breaks, and the value where it may be shown.

    A value is not shown for a name that is no setting: it may be somebody's API key.
    """
    said: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    for found in error.errors():
        path = _path(found["loc"], record)
        where = ".".join(map(str, path)) or "study"
        said.setdefault(where, []).append(_rule(found, path, record))
        if found["type"] != "extra_forbidden" and isinstance(found["input"], (str, int, float, bool)):
            values[where] = f" (got {found['input']!r})"
    return "; ".join(f"{where}: {_either(rules)}{values.get(where, '')}" for where, rules in said.items())


def _either(rules: list[str]) -> str:
    """The rules of a union's members as one: is a number or text in quotes."""
    first, *others = dict.fromkeys(rules)
    return " or ".join([first, *(other.removeprefix("is ") for other in others)])


def _rule(found: Mapping[str, Any], path: tuple[str | int, ...], record: type[BaseModel]) -> str:
    kind, context = str(found["type"]), found.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(str(path[-1]), path[:-1], record)
    if kind == "missing":
        return "is not set"
    if kind in ("value_error", "assertion_error"):
        return str(found["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind == "literal_error":
        choices = [c.strip("'") for c in str(context["expected"]).replace(" or ", ", ").split(", ")]
        near = nearest(found["input"], choices) if isinstance(found["input"], str) else None
        one = f"is {choices[0]}" if len(choices) == 1 else f"is one of {', '.join(choices)}"
        return one + (f"; nearest: {near}" if near else "")
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"is {words} {context[bound]:g}"
    if kind in ("string_too_short", "string_too_long"):
        return f"has {'at least' if kind.endswith('short') else 'at most'} {next(iter(context.values()))} characters"
    family = kind.partition("_")[0]
    return f"is {_KINDS[family]}" if family in _KINDS else str(found["msg"])


def _unknown(name: str, above: tuple[str | int, ...], record: type[BaseModel]) -> str:
    """What to say of a name that is no setting where it stands."""
    here = _fields(_at(above, record))
    if near := nearest(name, here):
        return f"there is no such setting; nearest: {near}"
    elsewhere = [section for section, field in record.model_fields.items()
                 if name in _fields(next(models_of(field.annotation), None))]  # fmt: skip
    if elsewhere:
        return f"there is no such setting here; {name} belongs to [{elsewhere[0]}]"
    return f"there is no such setting; there are {', '.join(here)}" if here else "there is no such setting"


def _path(loc: tuple[str | int, ...], record: type[BaseModel]) -> tuple[str | int, ...]:
    """``loc`` without what pydantic adds for the member of a union that it tried."""
    path: list[str | int] = []
    model: type[BaseModel] | None = record
    for part in loc:
        if isinstance(part, str) and model is None and path:
            break
        path.append(part)
        field = model.model_fields.get(part) if model is not None and isinstance(part, str) else None
        if model is not None and field is None and isinstance(part, str):
            break  # an unknown name: nothing lies below it
        if field is not None:
            model = next(models_of(field.annotation), None)
    return tuple(path)


def _at(path: tuple[str | int, ...], record: type[BaseModel]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = record
    for part in path:
        field = model.model_fields.get(str(part)) if model is not None else None
        model = None if field is None else next(models_of(field.annotation), None)
    return model


def _fields(model: type[BaseModel] | None) -> list[str]:
    return [] if model is None else list(model.model_fields)


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The records an annotation allows: itself, or members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for part in get_args(annotation):
            yield from models_of(part)
