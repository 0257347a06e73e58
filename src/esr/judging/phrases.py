"""The phrases by which a response announces that it starts its answer again, as data (``data/phrases.toml``).

Each phrase is a regular expression over *folded* text (``screen.Folded``), with one example that it must match. Two
strengths:

- ``sure``: speaks of the response or the question itself, so it is a restart wherever it stands;
- not ``sure``: also said of a fact, a word or a step ("wait, that is not right: he was born in 1889"). Two different
  ones side by side, or one at the place where the prompt's own words come back, make a restart.

Pivots and pretexts are never ``sure``: they count only where the prompt's words come back. Every repetition is
bounded, so a search takes time linear in the text. The kinds are those of METHOD section 6.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache, cached_property
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from esr.judging.records import RestartKind


class Phrase(BaseModel):
    """One way to announce a restart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: RestartKind
    language: str
    """ISO 639-1 code."""
    sure: bool = True
    pattern: str
    """Regular expression over folded text, its blocks expanded."""
    example: str
    """Text the pattern must match once folded."""

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled pattern."""
        return re.compile(self.pattern, re.MULTILINE)


@cache
def restart_phrases() -> tuple[Phrase, ...]:
    """Every phrase, in the file's order."""
    data = tomllib.loads(files("esr.judging").joinpath("data/phrases.toml").read_text(encoding="utf-8"))
    blocks: dict[str, str] = {name: _joined(text) for name, text in data["blocks"].items()}

    def expand(pattern: str) -> str:
        while (expanded := re.sub(r"<([A-Z]+)>", lambda m: blocks[m[1]], pattern)) != pattern:
            pattern = expanded
        return pattern

    return tuple(Phrase(**{**row, "pattern": expand(_joined(row["pattern"]))}) for row in data["phrase"])


def _joined(pattern: str) -> str:
    """Line breaks and indentation in a pattern are layout."""
    return "".join(line.strip() for line in pattern.split("\n")) if "\n" in pattern else pattern
