"""Data as the page carries it: JSON or numbers, deflated (zlib), in base64, in elements that no browser executes."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

LEVEL = 6
BLOCK = 400_000
"""Characters of text in a block, about: what a browser inflates in a few milliseconds to show one trial."""


def element(name: str, data: bytes) -> str:
    """A ``script`` element of a type that is data for every browser; ``name`` is its id."""
    return f'<script type="application/octet-stream" id="{name}">{pack(data)}</script>\n'


def pack(data: bytes) -> str:
    """Deflated, in base64."""
    return base64.b64encode(zlib.compress(data, LEVEL)).decode("ascii")


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8; where there are lone surrogates, which UTF-8 refuses, all of it in ASCII with escapes. NaN
    raises ValueError."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def bounds(sizes: Iterable[int], block: int = BLOCK) -> list[int]:
    """Where blocks begin when items of these sizes are filled into them in order: positions, the first 0; a block has
    at least one item and is closed as soon as it has reached ``block``."""
    starts, filled = [0], 0
    for position, size in enumerate(sizes):
        if filled >= block:
            starts.append(position)
            filled = 0
        filled += size
    return starts


def slices(starts: Sequence[int], length: int) -> Iterator[slice]:
    """The items of each block."""
    ends = (*starts[1:], length)
    return (slice(start, end) for start, end in zip(starts, ends, strict=True) if end > start)


class Utf16:
    """Offsets of a text as JavaScript counts: a character beyond the basic plane is two."""

    def __init__(self, text: str) -> None:
        plain = text.isascii() or max(text) <= "\uffff"
        self._wide = [] if plain else [i for i, character in enumerate(text) if character > "\uffff"]

    def __call__(self, offset: int) -> int:
        """``offset`` counted in characters, counted in units of UTF-16."""
        if not self._wide:
            return offset
        from bisect import bisect_left

        return offset + bisect_left(self._wide, offset)
