"""Where a judge's quotes stand in the response: exact character offsets, or a typed miss.

Models cannot count characters, but they can copy a few words. So a judge names each new start by its opening
words and this module finds them. A quote is looked for, in order, (1) as it is and (2) folded, that is
without regard to what judges are known to normalise: white space, letter case, typographic quotes and dashes,
the ellipsis, composed against decomposed accents, and invisible characters. Nothing fuzzier: a quote with a
word changed is a miss.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_SINGLE = "‘’‚‛′`´ʼ＇"
_DOUBLE = "“”„‟″«»＂"
_DASHES = "‐‑‒–—―−﹘﹣－"


@dataclass(frozen=True)
class Span:
    """Half-open interval of character positions in the response."""

    start: int
    end: int


@dataclass(frozen=True)
class QuoteNotFound:
    """Quote number ``index`` stands nowhere in the response."""

    index: int
    quote: str


@dataclass(frozen=True)
class OutOfOrder:
    """Quote number ``index`` stands in the response, but only before where it may."""

    index: int
    quote: str


@dataclass(frozen=True)
class _Mapped:
    """A transformed text and, for each of its characters, the position of the original one."""

    text: str
    origin: Sequence[int]

    def span(self, start: int, length: int) -> Span:
        return Span(self.origin[start], self.origin[start + length - 1] + 1)

    def at_or_after(self, position: int) -> int:
        """First index whose original position is at least ``position``; the origins never decrease."""
        low, high = 0, len(self.origin)
        while low < high:
            middle = (low + high) // 2
            if self.origin[middle] < position:
                low = middle + 1
            else:
                high = middle
        return low


@lru_cache(maxsize=65_536)
def _visible(char: str) -> str:
    """The character; a blank for a control character that spaces; nothing for the other invisible ones."""
    if char in " \t\n\r" or unicodedata.category(char) not in ("Cf", "Cc", "Cs"):
        return char
    return " " if char.isspace() else ""


@lru_cache(maxsize=65_536)
def _fold(char: str) -> str:
    if char.isspace():
        return " "
    if char in _SINGLE:
        return "'"
    if char in _DOUBLE:
        return '"'
    if char in _DASHES:
        return "-"
    if char == "…":
        return "..."
    if "\ufe00" <= char <= "\ufe0f":  # variation selectors: how an emoji is drawn
        return ""
    return unicodedata.normalize("NFD", _visible(char).casefold())


def visible(text: str) -> str:
    """The text without invisible characters: zero-width, direction, tag, control and lone surrogate ones.

    This is what a judge is shown. White space, tabs and line breaks stay.
    """
    return "".join(map(_visible, text))


def _visible_map(text: str) -> _Mapped:
    shown = visible(text)
    if shown == text:
        return _Mapped(text, range(len(text)))
    return _Mapped(shown, array("q", (i for i, char in enumerate(text) if _visible(char))))


def _folded_map(text: str) -> _Mapped:
    """Folded characters one by one; runs of white space and runs of dashes shrink to one."""
    parts: list[str] = []
    origin = array("q")
    last = ""
    for position, char in enumerate(text):
        folded = _fold(char)
        if not folded or (folded == last and folded in (" ", "-")):
            continue
        parts.append(folded)
        for _ in folded:
            origin.append(position)
        last = folded
    return _Mapped("".join(parts), origin)


def locate(quotes: Sequence[str], response: str, *, after: int = 0) -> tuple[Span, ...] | QuoteNotFound | OutOfOrder:
    """Find the quotes in the response, in order; offsets are positions in ``response`` as it is.

    The first quote stands at ``after`` or later. A quote that occurs several times is taken at its first occurrence
    after the start of the quote before it, the exact occurrences first. Time is linear in the length of the response
    for a handful of quotes.
    """
    shown = _visible_map(response)
    folded: _Mapped | None = None
    spans: list[Span] = []
    for index, quote in enumerate(quotes):
        exact_needle = visible(quote).strip()
        if not exact_needle:
            return QuoteNotFound(index, quote)
        span = _find(shown, exact_needle, after)
        if span is None:
            folded = folded or _folded_map(response)
            needle = _folded_map(exact_needle).text.strip()
            span = _find(folded, needle, after)
            if span is None:
                stands_earlier = exact_needle in shown.text or (needle and needle in folded.text)
                return OutOfOrder(index, quote) if stands_earlier else QuoteNotFound(index, quote)
        spans.append(span)
        after = span.start + 1
    return tuple(spans)


def opening(response: str) -> Span | None:
    """The response's first words, six at most, without what stands invisible before them; None if it has none."""
    start = next((i for i, char in enumerate(response) if _visible(char).strip()), None)
    if start is None:
        return None
    words = re.compile(r"\S+(?:\s+\S+){0,5}").match(response, start, start + 60)
    return Span(start, words.end() if words else start + 1)


def _find(haystack: _Mapped, needle: str, after: int) -> Span | None:
    if not needle:
        return None
    found = haystack.text.find(needle, haystack.at_or_after(after))
    return None if found < 0 else haystack.span(found, len(needle))
