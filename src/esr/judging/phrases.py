"""The phrases by which a response announces that it starts its answer again, as data (``data/phrases.toml``).

Each phrase is a regular expression over *folded* text (``screen.Folded``), with one example that it must match. The
kinds are those of METHOD section 6. Phrases differ in what else they need to make a restart:

- ``nothing``: speaks of the response or the question itself; a restart wherever it stands;
- ``topic``: also said in other sentences, so one of the prompt's words must stand in the same sentence;
- ``return``: also said of a fact or a step, so the prompt's words must come back after text without them;
- ``pair``: an admission ("wait, that is not right") needs an announcement beside it, or a return;
- ``both``: a bare transition ("now, about ..."): topic and return.

Every repetition is bounded, so a search takes time linear in the text.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache, cached_property
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict

from esr.judging.records import RestartKind

Needs = Literal["nothing", "topic", "return", "pair", "both"]


class Phrase(BaseModel):
    """One way to announce a restart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: RestartKind
    language: str
    """ISO 639-1 code."""
    needs: Needs = "nothing"
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
    """A line break in a pattern, with two blanks after it, is layout."""
    return pattern.removeprefix("  ").replace("\n  ", "") if "\n" in pattern or pattern.startswith("  ") else pattern
