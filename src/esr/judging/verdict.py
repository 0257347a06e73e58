"""The form a model judge must answer in, and the only way from its words to a judgement.

    {"restarts": 1,
     "attempts": [{"quote": "To boil an egg, take", "kind": "first", "score": 20},
                  {"quote": "Sorry, that is not", "kind": "disowning", "score": 90}]}

``restarts`` is asked first and by itself (did the text start over, whatever came of it?); the scores say
whether it helped. A form whose count and list disagree is rejected: a failed restart is then not lost in
silence. ``"segments": [first, middle, last]`` is added where implicit recovery is asked for.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from esr.judging.quotes import OutOfOrder, QuoteNotFound, locate, visible
from esr.judging.records import Attempt, RestartKind, Scored, Unscored, UnscoredReason

FORM_VERSION = 1
"""Part of every judge's key: raise it when the form or its reading changes."""

MAX_ATTEMPTS = 20
_MAX_ANSWER = 32_768  # characters; a verdict has a few hundred
_MAX_QUOTE = 160  # characters of the response kept as the attempt's quote

Score = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)]


class AttemptForm(BaseModel):
    """One attempt, as the judge writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quote: Annotated[str, Field(min_length=1, strict=True)]
    """The attempt's opening words, about 4 to 12, copied."""
    kind: Literal["first"] | RestartKind | None
    """``first`` (or null) for the first attempt, else how the new start was announced."""
    score: Score


class VerdictForm(BaseModel):
    """One response's verdict, as the judge writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    restarts: Annotated[int, Field(ge=0, lt=MAX_ATTEMPTS, strict=True)]
    """How often the response starts over, whether or not that helped."""
    attempts: Annotated[list[AttemptForm], Field(max_length=MAX_ATTEMPTS)]
    segments: Annotated[list[Score], Field(min_length=3, max_length=3)] | None = None
    """Scores of the first, middle and last third of the response."""

    @model_validator(mode="after")
    def _agree(self) -> VerdictForm:
        if self.restarts != max(0, len(self.attempts) - 1):
            raise ValueError(f"restarts is {self.restarts} but attempts lists {len(self.attempts)}")
        for index, attempt in enumerate(self.attempts):
            if (attempt.kind in (None, "first")) != (index == 0):
                raise ValueError(f'attempt {index + 1} has kind {attempt.kind}: only the first is "first"')
        return self


@dataclass(frozen=True)
class Rejected:
    """An answer that is no verdict: why, in the store's words and in words for the judge."""

    reason: UnscoredReason
    detail: str


def verdict_schema(segments: bool) -> dict[str, Any]:
    """JSON schema of the form, in the small dialect that providers' structured outputs share."""
    score = {"type": "number", "minimum": 0, "maximum": 100}
    attempt = {
        "type": "object",
        "properties": {
            "quote": {"type": "string", "description": "opening words of the attempt, copied verbatim"},
            "kind": {"type": "string", "enum": ["first", *get_args(RestartKind)]},
            "score": score,
        },
        "required": ["quote", "kind", "score"],
        "additionalProperties": False,
    }
    properties: dict[str, Any] = {
        "restarts": {"type": "integer", "description": "how often the response starts over, helpful or not"},
        "attempts": {"type": "array", "items": attempt},
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

    Scored has exact offsets: an attempt begins at its quote and ends where the next begins, the last at the
    end of the response. Unscored("no attempt") when the verdict is well formed and lists none. Rejected
    otherwise; never raises.
    """
    form = _parse(answer)
    if isinstance(form, Rejected):
        return form
    if (form.segments is not None) != segments:
        return Rejected("malformed", "segments is missing" if segments else "segments was not asked for")
    if not form.attempts:
        return Unscored("no attempt", "the judge found none")
    spans = locate([a.quote for a in form.attempts], response)
    if isinstance(spans, QuoteNotFound):
        return Rejected(
            "quote not found",
            f"the quote of attempt {spans.index + 1} is not in the response: {clip(spans.quote, 80)!r}",
        )
    if isinstance(spans, OutOfOrder):
        return Rejected(
            "out of order",
            f"the quote of attempt {spans.index + 1} is not after that of attempt {spans.index}: "
            f"{clip(spans.quote, 80)!r}",
        )
    ends = [*(s.start for s in spans[1:]), len(response)]
    attempts = tuple(
        Attempt(
            start=span.start,
            end=end,
            score=a.score,
            quote=response[span.start : min(span.end, span.start + _MAX_QUOTE)],
            kind=None if a.kind == "first" else a.kind,
        )
        for a, span, end in zip(form.attempts, spans, ends, strict=True)
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
