"""Steered responses as the beginnings of others: where a response restarted, what to compare it with, where to cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from esr.judging.records import EXPLICIT_KINDS, Attempt, Scored
from esr.judging.screen import find_restarts
from esr.studies.conditions import Start
from esr.studies.grid import Cell
from esr.studies.lab import Lab
from esr.studies.measure import Measured

CLOSE = 10.0
"""A response without restart is comparable to an episode when their first scores are no further apart (of 100): scores
are bimodal, and most responses of one attempt are so because they never left the topic."""
_REACH = 80  # characters around an attempt's beginning in which a restart phrase counts as its own


@dataclass(frozen=True)
class Source:
    """A scored response of the grid."""

    cell: Cell
    measured: Measured

    @property
    def key(self) -> str:
        """Key of the trial."""
        return self.measured.key

    @property
    def ids(self) -> tuple[int, ...]:
        """Tokens of the response."""
        return self.measured.response.token_ids

    @property
    def first_score(self) -> float:
        """Of the first attempt."""
        return _attempts(self)[0].score

    def start(self, tokens: int, cell: Cell | None = None) -> Start:
        """A trial that continues the first so many tokens."""
        return Start(cell or self.cell, self.ids[:tokens], self.key)


@dataclass(frozen=True)
class Episode(Source):
    """A response with an explicit restart."""

    restart: int
    """Tokens before its first explicit restart."""
    spoken: int
    """Tokens up to the end of the words that announce it."""


def episodes(lab: Lab, condition: str = "incidence") -> list[Episode]:
    """The multi-attempt responses of a condition over the grid, in its order. A restart needs a token on either side of
    it, and no other before it, announced or not."""
    found = []
    for source in scored(lab, condition):
        judgement, response = source.measured.judgement, source.measured.response
        assert isinstance(judgement, Scored)
        beginnings = [a for a in judgement.attempts if a.kind in EXPLICIT_KINDS]
        if not beginnings:
            continue
        start = beginnings[0].start
        marks = find_restarts(response.text, source.measured.task.prompt)
        own = [m for m in marks if m.start <= start + _REACH and m.end > start]
        start = min([start, *(m.start for m in own)])
        end = max((m.end for m in own), default=start + len(beginnings[0].quote))
        restart = lab.token_at(response, start)
        spoken = min(max(restart + 1, lab.token_at(response, end)), len(response.token_ids))
        if 0 < restart < len(response.token_ids) and not holds_restart(lab, source, restart):
            found.append(Episode(source.cell, source.measured, restart, spoken))
    return found


def without_restart(lab: Lab, condition: str = "incidence") -> list[Source]:
    """The scored responses of a condition that are one attempt, in its order."""
    return [s for s in scored(lab, condition) if len(_attempts(s)) == 1]


def partners(lab: Lab, found: Sequence[Episode], others: Sequence[Source], purpose: str) -> dict[str, Source]:
    """For each episode (by key) a response that went as far off topic (first scores at most ``CLOSE`` apart), never
    restarted, and is longer than the episode's text before its restart: of the same direction where there is one, least
    used first, then by the study's seed. Episodes without such a response are left out; one may serve several."""
    used: Counter[str] = Counter()
    chosen = {}
    for episode in found:
        alike = [
            s for s in others if len(s.ids) > episode.restart and abs(s.first_score - episode.first_score) <= CLOSE
        ]
        candidates = [s for s in alike if s.cell.direction == episode.cell.direction] or alike
        if candidates:
            fewest = min(used[s.key] for s in candidates)
            candidates = [s for s in candidates if used[s.key] == fewest]
            pick = int(lab.random("partner", purpose, episode.key).integers(len(candidates)))
            chosen[episode.key] = candidates[pick]
            used[candidates[pick].key] += 1
    return chosen


def holds_restart(lab: Lab, source: Source, tokens: int) -> bool:
    """Whether the judge or the phrase screen sees a restart in the first so many tokens."""
    text = lab.decode(source.ids[:tokens])
    later = [a for a in _attempts(source) if a.kind is not None and a.start < len(text)]
    return bool(later or find_restarts(text, source.measured.task.prompt))


def _attempts(source: Source) -> Sequence[Attempt]:
    judgement = source.measured.judgement
    return judgement.attempts if isinstance(judgement, Scored) else ()


def scored(lab: Lab, condition: str = "incidence") -> list[Source]:
    """The scored responses of a condition over the grid, in its order."""
    outcomes = zip(lab.cells, lab.outcomes(condition), strict=True)
    return [Source(cell, m) for cell, m in outcomes if isinstance(m.judgement, Scored)]
