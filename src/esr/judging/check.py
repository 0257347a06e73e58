"""Check a judge against responses whose attempts are known: what it finds, what it invents, how far off it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from esr.judging.labelled import LabelledAttempt, LabelledResponse
from esr.judging.records import EXPLICIT_KINDS, Attempt, Exhibit, Judge, Judgement, Scored, Unscored

if TYPE_CHECKING:
    from rich.table import Table

TOLERANCE = 40
"""Characters: a restart is found when its start is this near the true one, or in the same sentence."""

_SENTENCE_END = re.compile(r"[.!?。！？।\n]")


@dataclass(frozen=True)
class Rate:
    """``hits`` of ``n``."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """0 to 1; NaN when there was nothing to count."""
        return self.hits / self.n if self.n else float("nan")

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (Wilson 1927), 0 to 1; NaN when there was nothing to count."""
        if not self.n:
            return float("nan"), float("nan")
        from scipy.stats import binomtest

        interval = binomtest(self.hits, self.n).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)

    def __str__(self) -> str:
        if not self.n:
            return "none"
        low, high = self.interval()
        return f"{100 * self.value:.0f} %\n{100 * low:.0f} to {100 * high:.0f}\n{self.hits} of {self.n}"


@dataclass(frozen=True)
class Outcome:
    """One response: truth and verdict side by side."""

    labelled: LabelledResponse
    judgement: Judgement
    matches: tuple[tuple[int, int], ...]
    """(index of the true attempt, index of the judged one) for every restart that was found."""

    @property
    def judged(self) -> tuple[Attempt, ...]:
        """The judge's attempts; none for an unscored response."""
        return self.judgement.attempts if isinstance(self.judgement, Scored) else ()

    @property
    def missed(self) -> tuple[int, ...]:
        """Indices of the true attempts whose start was not found."""
        found = {true for true, _ in self.matches}
        return tuple(i for i in range(1, len(self.labelled.attempts)) if i not in found)

    @property
    def invented(self) -> tuple[int, ...]:
        """Indices of judged attempts that start where no true one does."""
        right = {judged for _, judged in self.matches}
        return tuple(i for i in range(1, len(self.judged)) if i not in right)


@dataclass(frozen=True)
class GroupResult:
    """A judge's errors on a group of responses.

    A restart is the start of any attempt after the first. Restarts of unscored responses count as missed.
    """

    group: str
    responses: int
    recall: Rate
    """True restarts that were found."""
    precision: Rate
    """Judged restarts that are true."""
    explicit_recall: Rate
    """True explicit restarts that were found and called explicit."""
    explicit_precision: Rate
    """Judged explicit restarts that are true and explicit."""
    kinds: Rate
    """Found restarts with the right kind, of those whose label names one."""
    boundary_median: float
    """Characters between judged and true start of found restarts; NaN without any."""
    boundary_max: float
    score_error: float
    """Mean distance of a score from the true band, in points; NaN without any scored attempt."""
    scores_outside: Rate
    """Attempts scored outside their band."""
    no_attempt: Rate
    """Responses without an attempt that were said to have none."""
    unscored: dict[str, int]
    """Responses with an attempt that got no verdict, by reason."""


@dataclass(frozen=True)
class CheckReport:
    """A judge's errors on a labelled set."""

    judge: str
    key: str
    groups: tuple[GroupResult, ...]
    outcomes: tuple[Outcome, ...]

    def group(self, name: str) -> GroupResult:
        """The group of that name. Raises KeyError."""
        return next((g for g in self.groups if g.group == name), None) or _absent(name)

    def to_json(self) -> dict[str, Any]:
        """Plain data: the groups, and what was missed and invented in each response."""
        errors = [
            {"id": o.labelled.id, "missed": o.missed, "invented": [asdict(o.judged[i]) for i in o.invented]}
            for o in self.outcomes
            if o.missed or o.invented
        ]
        return {"judge": self.judge, "key": self.key, "groups": [asdict(g) for g in self.groups], "errors": errors}


def _absent(name: str) -> GroupResult:
    raise KeyError(name)


def check_judge(judge: Judge, labelled: Iterable[LabelledResponse]) -> CheckReport:
    """Ask the judge about every response and compare.

    Raises RuntimeError when the judge loses a response or answers one twice.
    """
    rows = {row.id: row for row in labelled}
    verdicts: dict[str, Judgement] = {}
    for id_, judgement in judge.judge([Exhibit(r.id, r.prompt, r.response) for r in rows.values()]):
        if id_ not in rows or id_ in verdicts:
            raise RuntimeError(f"the judge answered {id_!r} twice or was never asked about it")
        verdicts[id_] = judgement
    if lost := rows.keys() - verdicts.keys():
        raise RuntimeError(f"the judge lost {len(lost)} responses, among them {min(lost)!r}")
    outcomes = tuple(Outcome(row, verdicts[row.id], _match(row, verdicts[row.id])) for row in rows.values())
    groups = [_result(name, [o for o in outcomes if member(o.labelled)]) for name, member in _groups(outcomes)]
    return CheckReport(judge.name, judge.key, tuple(groups), outcomes)


def _groups(outcomes: tuple[Outcome, ...]) -> list[tuple[str, Callable[[LabelledResponse], bool]]]:
    """Everything, the splits, English, English with explicit restarts, then each category and language."""

    def those(**wanted: str) -> Callable[[LabelledResponse], bool]:
        return lambda row: all(getattr(row, name) == value for name, value in wanted.items())

    def english_explicit(row: LabelledResponse) -> bool:
        return row.language == "en" and any(a.explicit for a in row.attempts[1:])

    rows = [o.labelled for o in outcomes]
    splits, categories, languages = (
        list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("split", "category", "language")
    )
    groups = [("all", those())]
    groups += [(split, those(split=split)) for split in splits if len(splits) > 1]
    if "en" in languages and len(languages) > 1:
        groups += [("English", those(language="en"))]
        groups += [(f"English, {split}", those(language="en", split=split)) for split in splits if len(splits) > 1]
        groups += [("English, explicit rows", english_explicit)]
    groups += [(f"category {category}", those(category=category)) for category in categories if len(categories) > 1]
    groups += [(f"language {language}", those(language=language)) for language in languages if len(languages) > 1]
    return groups


def _match(row: LabelledResponse, judgement: Judgement) -> tuple[tuple[int, int], ...]:
    """Pair true restarts with judged ones, each at most once, the nearest first come."""
    if isinstance(judgement, Unscored):
        return ()
    judged = judgement.attempts
    if not row.located:  # only the number is known
        return tuple((i, i) for i in range(1, min(len(judged), len(row.attempts))))
    free = set(range(1, len(judged)))
    matches = []
    for i, true in enumerate(row.attempts[1:], 1):
        near = [j for j in free if _same_place(row.response, _start(true), judged[j].start)]
        if near:
            best = min(near, key=lambda j: abs(judged[j].start - _start(true)))
            free.remove(best)
            matches.append((i, best))
    return tuple(matches)


def _start(attempt: LabelledAttempt) -> int:
    return attempt.start if attempt.start is not None else -1


def _same_place(text: str, one: int, other: int) -> bool:
    first, last = sorted((one, other))
    return last - first <= TOLERANCE or not _SENTENCE_END.search(text, first, last)


def _result(name: str, outcomes: list[Outcome]) -> GroupResult:
    true = [(o, i) for o in outcomes for i in range(1, len(o.labelled.attempts))]
    judged = [(o, j) for o in outcomes for j in range(1, len(o.judged))]
    found = [(o, o.labelled.attempts[i], o.judged[j]) for o in outcomes for i, j in o.matches]
    both = sum(t.explicit and j.kind in EXPLICIT_KINDS for _, t, j in found)
    named = [(t, j) for _, t, j in found if t.kind]
    distances = [abs(j.start - t.start) for _, t, j in found if t.start is not None]
    firsts = [(o.labelled.attempts[0], o.judged[0]) for o in outcomes if o.labelled.attempts and o.judged]
    errors = [_outside(t, j.score) for t, j in firsts + [(t, j) for _, t, j in found]]
    without = [o for o in outcomes if not o.labelled.attempts]
    silent = [o.judgement for o in outcomes if o.labelled.attempts]
    return GroupResult(
        group=name,
        responses=len(outcomes),
        recall=Rate(len(found), len(true)),
        precision=Rate(len(found), len(judged)),
        explicit_recall=Rate(both, sum(o.labelled.attempts[i].explicit for o, i in true)),
        explicit_precision=Rate(both, sum(o.judged[j].kind in EXPLICIT_KINDS for o, j in judged)),
        kinds=Rate(sum(t.kind == j.kind for t, j in named), len(named)),
        boundary_median=median(distances) if distances else float("nan"),
        boundary_max=max(distances, default=float("nan")),
        score_error=mean(errors) if errors else float("nan"),
        scores_outside=Rate(sum(e > 0 for e in errors), len(errors)),
        no_attempt=Rate(sum(o.judgement == Unscored("no attempt", _detail(o)) for o in without), len(without)),
        unscored=dict(Counter(j.reason for j in silent if isinstance(j, Unscored))),
    )


def _detail(outcome: Outcome) -> str:
    return outcome.judgement.detail if isinstance(outcome.judgement, Unscored) else ""


def _outside(attempt: LabelledAttempt, score: float) -> float:
    return max(attempt.score_low - score, 0.0, score - attempt.score_high)


def check_table(report: CheckReport) -> Table:
    """The report as a rich table, one row per group; below each rate its 95 % Wilson interval.

    ``off by``: median / maximum distance of a found restart's start from the true one, in characters."""
    from rich.table import Table

    table = Table(title=f"judge {report.judge} ({report.key}) on restarts", box=None, header_style="bold")
    for column in ("group", "n", "recall", "precision", "explicit\nrecall", "explicit\nprecision",
                   "off by\n(chars)", "score\nerror", "un-\nscored"):  # fmt: skip
        table.add_column(column, justify="left" if column == "group" else "right", no_wrap=column != "unscored")
    for g in report.groups:
        boundary = "" if g.boundary_median != g.boundary_median else f"{g.boundary_median:g}/{g.boundary_max:g}"
        score = "" if g.score_error != g.score_error else f"{g.score_error:.1f}"
        reasons = ", ".join(f"{n} {reason}" for reason, n in g.unscored.items())
        rates = (g.recall, g.precision, g.explicit_recall, g.explicit_precision)
        table.add_row(g.group, str(g.responses), *(str(rate) for rate in rates), boundary, score, reasons)
    return table
