"""The form a model judge must answer in, and the only way from its words to a judgement.

    {"restarts": [{"quote": "Sorry, that came out muddled.", "kind": "disowning"}], "scores": [20, 95]}

Whether the response started over is asked first and by itself; whether that helped is in the scores, one for the
first attempt and one for each restart. A form whose lists disagree is rejected, so that a failed restart is not lost
in silence. The first attempt opens with the response's first words, so only the claims, the restarts, are quoted: a
verdict costs a fraction of copying the attempts out. ``"segments": [first, middle, last]`` is added where implicit
recovery is asked for.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from esr.judging.quotes import OutOfOrder, QuoteNotFound, locate, opening, visible
from esr.judging.records import Attempt, RestartKind, Scored, Unscored, UnscoredReason

FORM_VERSION = 1
"""Part of every judge's key: raise it when the form or its reading changes."""

MAX_RESTARTS = 20
_MAX_ANSWER = 32_768  # characters; a verdict has a few hundred
_MAX_QUOTE = 160  # characters of the response kept as an attempt's quote

Score = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)]


class RestartForm(BaseModel):
    """One new start, as the judge writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quote: Annotated[str, Field(min_length=1, strict=True)]
    """Its opening words, about 4 to 12, copied."""
    kind: RestartKind


class VerdictForm(BaseModel):
    """One response's verdict, as the judge writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    restarts: Annotated[list[RestartForm], Field(max_length=MAX_RESTARTS)]
    """Every time the response starts over, whether or not that helped."""
    scores: list[Score]
    """Of the first attempt and of each restart's, in order; empty when the response holds no attempt at all."""
    segments: Annotated[list[Score], Field(min_length=3, max_length=3)] | None = None
    """Scores of the first, middle and last third of the response."""

    @model_validator(mode="after")
    def _agree(self) -> VerdictForm:
        attempts = 1 + len(self.restarts)
        if len(self.scores) != attempts and (self.scores or self.restarts):
            raise ValueError(f"scores has {len(self.scores)} numbers for {attempts} attempts")
        return self


@dataclass(frozen=True)
class Rejected:
    """An answer that is no verdict: why, in the store's words and in words for the judge."""

    reason: UnscoredReason
    detail: str


def verdict_schema(segments: bool) -> dict[str, Any]:
    """JSON schema of the form, in the small dialect that providers' structured outputs share."""
    score = {"type": "number", "minimum": 0, "maximum": 100}
    restart = {
        "type": "object",
        "properties": {
            "quote": {"type": "string", "description": "opening words of the new start, copied verbatim"},
            "kind": {"type": "string", "enum": list(get_args(RestartKind))},
        },
        "required": ["quote", "kind"],
        "additionalProperties": False,
    }
    properties: dict[str, Any] = {
        "restarts": {"type": "array", "items": restart, "description": "every new start, helpful or not"},
        "scores": {"type": "array", "items": score, "description": "of the first attempt and of each new start"},
    }
    if segments:
        properties["segments"] = {
            "type": "array",
            "items": score,
            "description": "scores of the three thirds",
        }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_verdict(answer: str, response: str, *, segments: bool = False) -> Scored | Unscored | Rejected:
    """From the judge's words to a judgement of ``response``.

    Scored has exact offsets: the first attempt begins with the response's first word, every other at its quote, and
    each ends where the next begins, the last at the end of the response. Unscored("no attempt") when the verdict is
    well formed and scores none. Rejected otherwise; never raises.
    """
    form = _parse(answer)
    if isinstance(form, Rejected):
        return form
    if (form.segments is not None) != segments:
        return Rejected("malformed", "segments is missing" if segments else "segments was not asked for")
    first = opening(response)
    if first is None or not form.scores:
        return Unscored("no attempt", "the judge found none")
    spans = locate([r.quote for r in form.restarts], response, after=first.start + 1)
    if isinstance(spans, QuoteNotFound):
        return Rejected(
            "quote not found",
            f"the quote of restart {spans.index + 1} is not in the response: {clip(spans.quote, 80)!r}",
        )
    if isinstance(spans, OutOfOrder):
        before = f"that of restart {spans.index}" if spans.index else "the opening of the response"
        return Rejected(
            "out of order",
            f"the quote of restart {spans.index + 1} is not after {before}: {clip(spans.quote, 80)!r}",
        )
    ends = [*(s.start for s in spans), len(response)]
    kinds: list[RestartKind | None] = [None, *(r.kind for r in form.restarts)]
    attempts = tuple(
        Attempt(span.start, end, score, response[span.start : min(span.end, span.start + _MAX_QUOTE)], kind)
        for span, end, score, kind in zip((first, *spans), ends, form.scores, kinds, strict=True)
    )
    return Scored(attempts, segments=tuple(form.segments or ()))


def _parse(answer: str) -> VerdictForm | Rejected:
    if not answer.strip():
        return Rejected("malformed", "the answer is empty")
    if len(answer) > _MAX_ANSWER:
        return Rejected("malformed", f"the answer has {len(answer)} characters")
    try:
        data = _only_object(answer)
        return VerdictForm.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return Rejected("malformed", clip(f"{where}: {first['msg']}" if where else first["msg"], 200))
    except (ValueError, RecursionError) as error:
        return Rejected("malformed", clip(str(error), 200))


def _only_object(answer: str) -> Any:
    """The one JSON object in the answer; text or code fences around it are let pass. Raises ValueError."""
    decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    try:
        return decoder.decode(answer.strip())
    except json.JSONDecodeError as error:
        whole = error
    found: list[Any] = []
    position = answer.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(answer, position)
            found.append(value)
        except json.JSONDecodeError:
            end = position + 1
        position = answer.find("{", end)
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"the answer holds {len(found)} JSON objects instead of one")
    raise ValueError(f"the answer is no JSON object ({whole.msg} at character {whole.pos})")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a JSON object names a key twice")
    return data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def clip(text: str, length: int) -> str:
    """One printable line of at most ``length`` characters: foreign text never travels raw into details."""
    line = re.sub(r"\s+", " ", visible(text)).strip()
    return line if len(line) <= length else line[: length - 1] + "…"
