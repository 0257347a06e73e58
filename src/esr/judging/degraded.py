"""Did a response collapse into repetition?

Rule: cut the text into windows of 400 characters, step 100. A window has collapsed when fewer than 40 % of its
12-character shingles are distinct. The response is degraded when its last window collapsed, or a quarter of all
windows did. Characters rather than words, so that it holds for languages without spaces. Numbers that open a line
are left out first: counting upwards while repeating is repeating.

The share of distinct n-grams is the usual measure of degenerate repetition (Holtzman and others, The Curious Case
of Neural Text Degeneration, 2020; Welleck and others, Neural Text Generation with Unlikelihood Training, 2020).
Window and thresholds are ours, set on real steered responses: prose, lists and templated text stay above 60 %,
loops fall below 30 %.
"""

from __future__ import annotations

import re

DEGRADED_VERSION = 1
"""Raised with every change of the rule: what an earlier version said is not read any more."""

_SHINGLE = 12
_WINDOW = 400
_STEP = 100
_SHORTEST = 80  # characters; below this a text is too short to have collapsed
_DISTINCT = 0.4
_SHARE = 0.25

_LINE_NUMBER = re.compile(r"^[ *#_-]*\(?[0-9]+[.):]*", re.MULTILINE)


def is_degraded(text: str) -> bool:
    """Whether ``text`` collapsed into repetition. Empty and very short texts have not."""
    shares = distinct_shares(text)
    if not shares:
        return False
    collapsed = [share < _DISTINCT for share in shares]
    return collapsed[-1] or sum(collapsed) / len(collapsed) >= _SHARE


def distinct_shares(text: str) -> list[float]:
    """Share of distinct 12-character shingles, 0 to 1, in each window of the text; empty for a short text."""
    plain = re.sub(r"\s+", " ", _LINE_NUMBER.sub("", text.lower())).strip()
    if len(plain) < _SHORTEST:
        return []
    shingles = [plain[i : i + _SHINGLE] for i in range(len(plain) - _SHINGLE + 1)]
    last = max(0, len(shingles) - _WINDOW)
    starts = [*range(0, last, _STEP), last]
    windows = (shingles[start : start + _WINDOW] for start in starts)
    return [len(set(window)) / len(window) for window in windows]
