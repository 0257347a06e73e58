"""Which responses the report shows, and how a response is cut into its attempts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from esr.judging.records import Attempt

SHOWN = 10
_SHARES = (("improved", 5), ("not improved", 3), ("single", 2))
"""Of ten: multi-attempt responses that improved, that did not, and responses of one attempt."""


def choose_episodes(trials: pd.DataFrame, count: int = SHOWN) -> pd.DataFrame:
    """Up to ``count`` scored trials, in the order improved, not improved, single, with that word in column
    ``outcome``.

    A fixed rule, so that nobody picks the nice ones: within each kind the trials stand in the order of the
    SHA-256 of their key, but a direction's second response comes after every direction's first, and
    conditions take turns. Of ten, five improved, three did not and two have a single attempt; where a kind
    has too few, the others fill up in the same order.
    """
    scored = trials[trials["state"].eq("scored")].copy()
    multi, improved = scored["multi_attempt"].astype(bool), scored["improved"].astype(bool)
    scored["outcome"] = "single"
    scored.loc[multi, "outcome"] = "not improved"
    scored.loc[improved, "outcome"] = "improved"
    scored["_hash"] = [_hash(key) for key in scored["trial"]]
    scored = scored.sort_values("_hash", kind="stable")
    scored["_turn"] = scored.groupby(["outcome", "direction"]).cumcount()
    scored["_round"] = scored.groupby(["outcome", "_turn", "condition"]).cumcount()
    scored = scored.sort_values(["_turn", "_round", "_hash"], kind="stable")
    kinds = [scored[scored["outcome"].eq(kind)] for kind, _ in _SHARES]
    quota = [min(len(rows), share * count // SHOWN) for rows, (_, share) in zip(kinds, _SHARES, strict=True)]
    for i, rows in enumerate(kinds):
        quota[i] += min(len(rows) - quota[i], count - sum(quota))
    chosen = pd.concat([rows.head(n) for rows, n in zip(kinds, quota, strict=True)])
    return chosen.drop(columns=["_hash", "_turn", "_round"]).reset_index(drop=True)


@dataclass(frozen=True)
class Segment:
    """A stretch of a response: an attempt, or text that belongs to none."""

    text: str
    attempt: Attempt | None = None
    number: int = 0
    """1 for the first attempt; 0 for text outside of attempts."""

    @property
    def opening(self) -> str:
        """The quote, when the text begins with it (white space aside), else empty."""
        quote = self.attempt.quote if self.attempt else ""
        start = len(self.text) - len(self.text.lstrip())
        return self.text[: start + len(quote)] if quote and self.text.startswith(quote, start) else ""

    @property
    def band(self) -> str:
        """``none``, or the third of the scale the score lies in: ``low`` (< 34), ``middle``, ``high`` (> 66)."""
        if self.attempt is None:
            return "none"
        score = self.attempt.score
        return "low" if score < 34 else "high" if score > 66 else "middle"


def segments(text: str, attempts: Sequence[Attempt]) -> list[Segment]:
    """The whole text, in order, cut at the attempts' bounds; nothing is lost but white space outside of
    attempts.
    """
    pieces: list[Segment] = []
    position = 0
    for number, attempt in enumerate(attempts, 1):
        pieces.append(Segment(text[position : attempt.start]))
        pieces.append(Segment(text[attempt.start : attempt.end], attempt, number))
        position = attempt.end
    pieces.append(Segment(text[position:]))
    return [piece for piece in pieces if piece.attempt or piece.text.strip()]


def _hash(key: object) -> str:
    return hashlib.sha256(str(key).encode("utf-8", "backslashreplace")).hexdigest()
