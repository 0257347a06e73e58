"""What a judge says about one response: a typed state, scored or unscored, never a guess."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from esr.errors import UserError

RestartKind = Literal["disowning", "redo", "refocus", "inadequacy", "pivot", "pretext"]
"""Why a new attempt began (METHOD: the kinds seen in real responses)."""

EXPLICIT_KINDS: frozenset[RestartKind] = frozenset({"disowning", "redo", "refocus", "inadequacy"})
"""The text refers to its own output or task and announces a new start. Only these count as ESR in the paper's
sense; pivots and pretexts are reported beside it."""

UnscoredReason = Literal[
    "refused", "malformed", "quote not found", "out of order", "timeout", "no attempt", "error", "not sampled"
]


@dataclass(frozen=True)
class Attempt:
    """A stretch of the response that tries to answer. Offsets are character positions in the response text."""

    start: int
    end: int
    """Exclusive."""
    score: float
    """0-100: answers the prompt and is free of the unrelated topic."""
    quote: str = ""
    """The attempt's opening words, verbatim from the response."""
    kind: RestartKind | None = None
    """None for the first attempt; for every later one, how it was announced."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise UserError("an attempt spans 0 <= start <= end", f"[{self.start}, {self.end})")
        if not 0 <= self.score <= 100:
            raise UserError("a score lies in 0..100", self.score)


@dataclass(frozen=True)
class Scored:
    """A judged response: at least one attempt, in order, not overlapping."""

    attempts: tuple[Attempt, ...]
    segments: tuple[float, ...] = ()
    """Scores 0-100 of the thirds of the response, where asked for: implicit recovery, never part of ESR."""

    def __post_init__(self) -> None:
        if not all(0 <= score <= 100 for score in self.segments):
            raise UserError("a score lies in 0..100", list(self.segments))
        if not self.attempts:
            raise UserError("a scored response has at least one attempt", None, "Use Unscored('no attempt')")
        for before, after in zip(self.attempts, self.attempts[1:], strict=False):
            if after.start < before.end:
                raise UserError("attempts are in order and do not overlap", f"{before.end} > {after.start}")
            if after.kind is None:
                raise UserError("every attempt after the first has a kind", None)

    @property
    def explicit_restarts(self) -> int:
        """How many attempts began with explicit restart language."""
        return sum(a.kind in EXPLICIT_KINDS for a in self.attempts)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store; ``judgement_from_json`` reads it."""
        data: dict[str, Any] = {"attempts": [asdict(a) for a in self.attempts]}
        return data | {"segments": list(self.segments)} if self.segments else data


@dataclass(frozen=True)
class Unscored:
    """A response without a verdict. It stays in the data and in every footnote, never as a score of 0."""

    reason: UnscoredReason
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store; ``judgement_from_json`` reads it."""
        return {"reason": self.reason, "detail": self.detail}


Judgement = Scored | Unscored


def judgement_from_json(data: dict[str, Any]) -> Judgement:
    """The inverse of ``to_json``."""
    if "attempts" in data:
        return Scored(tuple(Attempt(**a) for a in data["attempts"]), tuple(data.get("segments", ())))
    return Unscored(**data)


@dataclass(frozen=True)
class Exhibit:
    """What a judge sees of a response."""

    id: str
    prompt: str
    """The user's question as asked, without chat template."""
    response: str
    """Untrusted text."""


class Judge(Protocol):
    """Turns responses into judgements."""

    @property
    def name(self) -> str:
        """Short name for tables, for example ``rule``."""
        ...

    @property
    def key(self) -> str:
        """Hash of everything that determines the verdicts (rubric, model, settings): the store keeps one per key."""
        ...

    def judge(self, exhibits: Iterable[Exhibit]) -> Iterator[tuple[str, Judgement]]:
        """Yield (exhibit id, judgement) as they are ready, each exactly once, in any order."""
        ...
