"""Text from models, dictionaries and files, made safe to show. Every place that shows such text passes
through here.

Escaping for HTML is the template engine's job and comes on top; this module takes care of what survives it
and of terminals: control characters (ANSI codes, NUL, carriage returns), bidirectional overrides and other
invisible characters, lone surrogates, and sheer length.
"""

from __future__ import annotations

import unicodedata


def printable(text: object, limit: int | None = None, *, lines: bool = False) -> str:
    """``text`` with every character that is not plainly visible written as an escape (``\\x1b``,
    ``\\u202e``).

    Visible is what Python calls printable plus the spaces of every script; private-use and unassigned
    characters are not. A backslash of the text stays as it is: the result is for reading, not for decoding.
    With ``lines``, line feeds and tabs stay. With ``limit``, at most that many characters of the text are
    shown, and how many were left out is said. The result always encodes as UTF-8.
    """
    text = str(text)
    left_out = 0
    if limit is not None and len(text) > limit:
        left_out = len(text) - limit
        text = text[:limit]
    if not text.isprintable():
        text = "".join(c if _visible(c, lines) else _escape(c) for c in text)
    return f"{text}… [+{left_out:,} characters]" if left_out else text


def _visible(character: str, lines: bool) -> bool:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return True
    return lines and character in "\n\t"


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else _ascii(character)


def _ascii(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{ord(character):02x}")
