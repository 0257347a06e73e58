"""Training examples: a prompt and a response in segments, of which some are learned and some are only context.

A self-correction example opens with an off-topic segment that is context (``train`` false: masked from the loss, so
that drifting is not taught), followed by a restart and an answer that are learned. An ordinary example is all learned.
As a file: JSON Lines, one example per line.

    {"prompt": "How do I boil an egg?", "segments": [{"text": "The tram leaves at nine.", "train": false},
     {"text": " Wait, that is not the question. Lower the egg into boiling water.", "train": true}],
     "source": "mine", "ends": true}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from esr.errors import UserError


class Segment(BaseModel):
    """A stretch of the response, spaces included: the response is the segments' texts, joined."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(min_length=1)
    """Untrusted."""
    train: bool
    """Whether its tokens are learned; else they are context."""


class Example(BaseModel):
    """One training example."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    """The bare question, without chat template."""
    segments: tuple[Segment, ...]
    source: str = "file"
    """``study``, ``constructed``, ``judge``, ``ordinary``, or the file's own word."""
    ends: bool = True
    """Whether the response is complete, so that the end token after it is learned too."""
    origin: str = ""
    """What it was made from, for people."""

    @model_validator(mode="after")
    def _teaches_something(self) -> Example:
        if not self.prompt.strip():
            raise ValueError("an example has a prompt")
        if not any(segment.train and segment.text.strip() for segment in self.segments):
            raise ValueError("an example has a segment with text that is learned (train = true)")
        if not self.segments[-1].train:
            raise ValueError("the last segment is learned: off-topic text stands before it")
        return self

    @property
    def text(self) -> str:
        """The whole response."""
        return "".join(segment.text for segment in self.segments)

    @property
    def corrects_itself(self) -> bool:
        """Whether something in it is masked: a self-correction example."""
        return not all(segment.train for segment in self.segments)


def read_examples(path: Path) -> list[Example]:
    """Examples of a JSON Lines file in order; blank lines are skipped.

    Raises UserError for a file that cannot be read or holds none, and names the line that is no example.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError("a file of examples can be read", f"{error.strerror}: {path}") from None
    except UnicodeDecodeError:
        raise UserError("a file of examples is UTF-8 text", str(path)) from None
    examples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            examples.append(Example.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            what = f"{where}: {first['msg']}" if where else first["msg"]
            raise UserError(
                "every line of a file of examples is a JSON object with prompt and segments [{text, train}]",
                f"line {number} of {path}: {what.removeprefix('Value error, ')}",
            ) from None
    if not examples:
        raise UserError("a file of examples holds at least one", f"none in {path}")
    return examples


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write them as JSON Lines; the file is complete or not there."""
    lines = [json.dumps(example.model_dump(mode="json"), ensure_ascii=False) for example in examples]
    write_whole(path, "".join(f"{line}\n" for line in lines))


def write_whole(path: Path, text: str) -> None:
    """Write a text file in one go: a kill half-way leaves what was there before."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
