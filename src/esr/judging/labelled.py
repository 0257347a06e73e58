"""Responses whose attempts are known: the truth a judge is checked against.

The set that ships with the package (``data/labelled.jsonl``) was written for this purpose. A row stores its response
as segments, one per attempt, so the offsets are exact by construction. A third of each category is held out: no
phrase of the screen was ever changed because of those rows.
"""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from esr.errors import UserError
from esr.judging.records import EXPLICIT_KINDS, RestartKind

Split = Literal["dev", "held-out", "none"]

_SLACK = 15  # points: how far another judge's single score may be from ours before it counts as an error


class LabelledAttempt(BaseModel):
    """What is known of one attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int | None = Field(default=None, ge=0)
    """Character offset of the attempt's first character; None where only the number of attempts is known."""
    end: int | None = Field(default=None, ge=0)
    """Exclusive; None with ``start``."""
    kind: RestartKind | None = None
    """How the attempt was announced; None for the first, and where the label does not say."""
    score_low: float = Field(ge=0, le=100)
    score_high: float = Field(ge=0, le=100)
    """Any score in [score_low, score_high] is right."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.score_low > self.score_high:
            raise ValueError(f"score_low <= score_high: {self.score_low} > {self.score_high}")
        return self

    @property
    def explicit(self) -> bool:
        """Explicit restart language. A label that names no kind counts as explicit: so counts the reference."""
        return self.kind is None or self.kind in EXPLICIT_KINDS


class LabelledResponse(BaseModel):
    """A response and its true attempts. No attempts: an empty response, for which ``no attempt`` is right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str
    response: str
    category: str
    language: str
    """ISO 639-1 code, ``mix`` for several, ``und`` where nobody says."""
    split: Split
    attempts: tuple[LabelledAttempt, ...]
    notes: str = ""

    @model_validator(mode="after")
    def _attempts_tile(self) -> Self:
        located = [a for a in self.attempts if a.start is not None and a.end is not None]
        if located and len(located) != len(self.attempts):
            raise ValueError("either every attempt has offsets or none")
        spans = [(a.start or 0, a.end or 0) for a in located]
        if any(start >= end or end > len(self.response) for start, end in spans):
            raise ValueError("attempts lie inside the response and are not empty")
        if any(after[0] < before[1] for before, after in pairwise(spans)):
            raise ValueError("attempts are in order and do not overlap")
        return self

    @property
    def located(self) -> bool:
        """Whether it is known where the attempts begin, not only how many there are."""
        return all(a.start is not None for a in self.attempts)


def load_labelled(path: Path | None = None) -> list[LabelledResponse]:
    """Read a labelled set; without a path the one that ships with the package.

    Reads JSON lines of our own form (``segments``) and of the reference's validation set (``original_scores``), and
    the reference's result file (one JSON object with ``results_by_feature``). In the last two the labels are another
    model's: bands are its score +-15, kinds are unknown. Raises UserError for anything else, naming the line.
    """
    if path is None:
        text, name = files("esr.judging").joinpath("data/labelled.jsonl").read_text(encoding="utf-8"), "labelled.jsonl"
    else:
        name = path.name
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError("a labelled set is a readable UTF-8 file", f"{name}: {error}") from error
    whole = _object(text)
    rows: list[tuple[str, str | dict[str, Any]]]
    if whole is not None and "results_by_feature" in whole:
        rows = [(f"trial {i}", row) for i, row in enumerate(_reference_trials(whole), 1)]
    else:
        rows = [(f"line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise UserError("a labelled set has at least one row", name)
    responses = [_response(row, f"{name}, {where}", number) for number, (where, row) in enumerate(rows, 1)]
    if len({r.id for r in responses}) < len(responses):
        raise UserError("every row of a labelled set has its own id", name)
    return responses


def _object(text: str) -> dict[str, Any] | None:
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return None
    return data if isinstance(data, dict) else None


def _response(row: str | dict[str, Any], where: str, number: int) -> LabelledResponse:
    try:
        data = json.loads(row) if isinstance(row, str) else row
        if "segments" in data:
            return _from_segments(data)
        return _from_scores(data, f"row-{number:03d}")
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise UserError(
            "a labelled row has prompt and response segments, or prompt, response and original_scores",
            f"{where}: {problem}",
        ) from error


def _from_segments(data: dict[str, Any]) -> LabelledResponse:
    """Our own form: ``segments`` of text, kind and band (None: holds no attempt)."""
    segments = data["segments"]
    ends = list(accumulate((len(s["text"]) for s in segments), initial=0))
    attempts = [
        LabelledAttempt(start=start, end=end, kind=s["kind"], score_low=s["band"][0], score_high=s["band"][1])
        for s, (start, end) in zip(segments, pairwise(ends), strict=True)
        if s["band"] is not None
    ]
    rest = {key: value for key, value in data.items() if key != "segments"}
    return LabelledResponse(**rest, response="".join(s["text"] for s in segments), attempts=tuple(attempts))


def _from_scores(data: dict[str, Any], fallback_id: str) -> LabelledResponse:
    """The reference's forms: one score per attempt, and at most the attempts' texts."""
    scores, response = data["original_scores"], data["response"]
    if len(scores) != data.get("original_n_attempts", len(scores)):
        raise ValueError("original_n_attempts is the number of original_scores")
    if not all(0 <= score <= 100 for score in scores):
        raise ValueError("a score lies in 0..100")
    spans = _located(response, data.get("texts", []), len(scores))
    attempts = [
        LabelledAttempt(start=start, end=end, score_low=max(0, s - _SLACK), score_high=min(100, s + _SLACK))
        for s, (start, end) in zip(scores, spans, strict=True)
    ]
    return LabelledResponse(
        id=data.get("id", fallback_id),
        prompt=data["prompt"],
        response=response,
        category=data.get("category", "reference"),
        language="und",
        split="none",
        attempts=tuple(attempts),
        notes=data.get("feature_label", ""),
    )


def _located(response: str, texts: list[str], count: int) -> list[tuple[int | None, int | None]]:
    """Where the attempts' texts stand, if all of them do, verbatim and in order. One attempt is the whole response."""
    if count == 1 and response:
        return [(0, len(response))]
    spans: list[tuple[int | None, int | None]] = []
    position = 0
    for text in texts:
        at = response.find(text.strip(), position)
        if at < 0 or not text.strip():
            break
        position = at + len(text.strip())
        spans.append((at, position))
    return spans if spans and len(spans) == count else [(None, None)] * count


def _reference_trials(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The judged trials of the reference's result file; trials without a verdict are left out."""
    rows = []
    for feature in data["results_by_feature"]:
        for trial in feature.get("trials", []):
            attempts = (trial.get("score") or {}).get("attempts") or []
            if trial.get("response") is None or not attempts:
                continue
            rows.append(
                {
                    "prompt": trial["prompt"],
                    "response": trial["response"],
                    "feature_label": trial.get("feature_label", ""),
                    "original_scores": [a["score"] for a in attempts],
                    "texts": [a.get("attempt_text", "") for a in attempts],
                }
            )
    return rows
