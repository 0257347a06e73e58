"""From a verdict of the reference's judge to attempts with positions in the response."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from esr.judging.quotes import Span, locate, opening
from esr.judging.records import Attempt

_OPENINGS = (12, 6)
"""Words of an attempt's text that are looked for when the whole of it is not found."""
_QUOTE = 60
"""Characters of a quote, at most."""


def locate_attempts(texts: Sequence[str], scores: Sequence[float], response: str) -> list[Attempt]:
    """Attempts with their positions, or none when a later one is not found: positions are never guessed.

    The first begins with the response's first word, every other where its text stands (judges copy loosely: if not the
    whole of it, then its first words), and each ends where the next begins. Kinds are not known.
    """
    first = opening(response)
    if first is None:
        return []
    spans = [first]
    for before, text in pairwise(texts):
        start = spans[-1].start
        whole = locate([before], response, after=start)
        end = whole[0].end if isinstance(whole, tuple) else spans[-1].end
        # behind the attempt before it, or else at least behind its beginning: some judges repeat a part
        found = next(_occurrences(text, response, (end, start + 1)), None)
        if found is None:
            return []
        spans.append(found)
    ends = [*(span.start for span in spans[1:]), len(response)]
    return [
        Attempt(span.start, end, score, response[span.start : min(span.end, span.start + _QUOTE)])
        for span, end, score in zip(spans, ends, scores, strict=True)
    ]


def _occurrences(text: str, response: str, starts: tuple[int, int]) -> Iterator[Span]:
    words = text.split()
    quotes = [text, *(" ".join(words[:n]) for n in _OPENINGS if len(words) > n)]
    for start in starts:
        for quote in quotes:
            found = locate([quote], response, after=start)
            if isinstance(found, tuple):
                yield found[0]


def scored(scores: Sequence[float], explicit: int) -> dict[str, Any]:
    """The columns that follow from the attempts' scores and from how many began with explicit restart language."""
    multi = explicit > 0
    return {
        "state": "scored", "reason": "", "n_attempts": len(scores), "explicit_restarts": explicit,
        "first_score": scores[0], "last_score": scores[-1],
        "improvement": scores[-1] - scores[0] if multi else math.nan,
        "multi_attempt": multi, "improved": multi and scores[-1] > scores[0],
    }  # fmt: skip


def unscored(reason: str) -> dict[str, Any]:
    """The columns of a response without a verdict."""
    nothing = dict.fromkeys(
        ("n_attempts", "explicit_restarts", "first_score", "last_score", "improvement"), math.nan
    )  # fmt: skip
    return {"state": "unscored", "reason": reason, "multi_attempt": False, "improved": False, "attempts": [], **nothing}
