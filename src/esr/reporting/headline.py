"""The headline and paired tables as words, shared by the terminal and the HTML report, so that both say the
same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from esr.analysis.metrics import STATISTICS, SUBSETS, Statistic
from esr.analysis.uncertainty import DIRECTIONS_AS_TRIALS
from esr.reporting import numbers

BY_KEY = {statistic.key: statistic for statistic in STATISTICS}
RATES = tuple(statistic for statistic in STATISTICS if statistic.is_rate)


@dataclass(frozen=True)
class Cell:
    """One quantity as text."""

    value: str
    interval: str = ""
    counts: str = ""
    """What it was counted over, for example ``62 of 195``."""
    method: str = ""
    note: str = ""
    """Why the value is undefined."""


@dataclass(frozen=True)
class Headline:
    """One condition's row."""

    condition: str
    """Untrusted."""
    n_trials: int
    n_scored: int
    n_unscored: int
    n_degraded: int
    n_directions: int
    n_promoted_directions: int
    n_prompts: int
    n_unannounced: int
    unscored_reasons: dict[str, int]
    cells: dict[str, Cell]
    """By statistic key, also with the suffixes of ``SUBSETS``."""
    wilson: dict[str, str]
    """Rate key -> Wilson's interval for independent trials."""

    @property
    def footnotes(self) -> list[str]:
        """What the reader must know besides the numbers."""
        notes = []
        if self.n_unscored:
            reasons = ", ".join(f"{reason or 'no reason given'}: {n}" for reason, n in self.unscored_reasons.items())
            notes.append(f"{self.n_unscored} of {self.n_trials} responses unscored ({reasons}); in no denominator.")
        if self.n_unannounced:
            notes.append(
                f"{self.n_unannounced} more responses began anew without announcing it (pivot or pretext);"
                " not counted as restarts."
            )
        if self.n_promoted_directions:
            notes.append(
                f"{self.n_promoted_directions} of {self.n_directions} directions promote restart words themselves."
            )
        if self._directions_as_trials:
            named = _and([s.title for s in self._directions_as_trials])
            notes.append(
                f"too few events to measure how alike the trials of a direction are, so the interval of the {named}"
                " takes every direction as one trial."
            )
        undefined: dict[str, list[str]] = {}
        for key, cell in self.cells.items():
            if key in BY_KEY and cell.note:
                undefined.setdefault(cell.note, []).append(BY_KEY[key].title.lower())
        return notes + [f"{why}, so no {' and no '.join(names)}." for why, names in sorted(undefined.items())]

    @property
    def as_independent(self) -> str:
        """The intervals that take trials as independent, where the others take directions as trials, each with its
        statistic's name and in the order of ``RATES``; else empty.
        """
        named: dict[str, list[str]] = {}
        for statistic in self._directions_as_trials:
            named.setdefault(self.wilson[statistic.key], []).append(statistic.title)
        return ", ".join(f"{_and(titles)} {span}" for span, titles in named.items())

    @property
    def _directions_as_trials(self) -> list[Statistic]:
        return [s for s in RATES if self.cells[s.key].method == DIRECTIONS_AS_TRIALS]


def grouped_notes(rows: Sequence[Headline]) -> list[str]:
    """The footnotes of all conditions, each said once with the conditions it holds for."""
    grouped: dict[str, list[str]] = {}
    for row in rows:
        for note in row.footnotes:
            grouped.setdefault(note, []).append(row.condition)
    notes = [f"{', '.join(conditions)}: {note}" for note, conditions in grouped.items()]
    independent: dict[str, list[str]] = {}
    for row in rows:
        if row.as_independent:
            independent.setdefault(row.as_independent, []).append(row.condition)
    if independent:
        spans = "; ".join(f"{', '.join(conditions)}: {span}" for span, conditions in independent.items())
        notes.append(f"With all trials independent these intervals would be: {spans}.")
    return notes


@dataclass(frozen=True)
class Contrast:
    """One statistic of one comparison."""

    treatment: str
    control: str
    """Both untrusted."""
    statistic: str
    value_treatment: str
    value_control: str
    difference: Cell
    ratio: Cell
    p: str
    p_holm: str
    note: str
    paired: bool
    """Whether the conditions share trials; else they are compared by direction."""


@dataclass(frozen=True)
class Recovery:
    """One condition's kinds of recovery (``esr.analysis.recovery.KINDS``)."""

    condition: str
    """Untrusted."""
    cells: dict[str, Cell]
    """By kind."""
    began: dict[str, int]
    """Responses that began anew that way, improved or not; of explicit and pivot."""


def recovery_rows(table: pd.DataFrame) -> list[Recovery]:
    """The rows of a ``recoveries`` frame, a condition each."""
    rows = []
    for name, part in table.groupby("condition", sort=True):
        cells, began = {}, {}
        for row in part.to_dict("records"):
            why = "" if row["counted"] else "thirds not judged" if row["kind"] == "gradual" else "no scored responses"
            cells[row["kind"]] = Cell(
                numbers.percent(row["rate"]),
                numbers.span(row["low"], row["high"], scale=100),
                f"{row['events']} of {row['counted']}",
                row["method"],
                why,
            )
            if not math.isnan(row["began"]):
                began[row["kind"]] = round(row["began"])
        rows.append(Recovery(str(name), cells, began))
    return rows


def headlines(summary: pd.DataFrame) -> list[Headline]:
    """The rows of a ``summarise`` frame."""
    return [_headline(row) for row in summary.to_dict("records")]


def contrasts(paired: pd.DataFrame) -> list[Contrast]:
    """The rows of a ``compare_all`` frame."""
    return [_contrast(row) for row in paired.to_dict("records")]


def pairing(paired: pd.DataFrame) -> list[str]:
    """One sentence per comparison: pairs, directions, and what was left out."""
    return [_pairing(row) for row in paired.drop_duplicates(["treatment", "control"]).to_dict("records")]


def _pairing(row: dict[Any, Any]) -> str:
    start = f"{row['treatment']} against {row['control']}:"
    if not row["paired"]:
        return (
            f"{start} no trials in common, so compared by direction, {row['n_directions']} directions"
            f" ({row['n_unscored']} unscored trials left out)."
        )
    return (
        f"{start} {row['n_pairs']} pairs over {row['n_directions']} directions"
        f" ({row['n_unscored']} left out because an arm is unscored,"
        f" {row['n_unmatched_treatment'] + row['n_unmatched_control']} trials without a partner)."
    )


def _headline(row: dict[Any, Any]) -> Headline:
    counts = {name: row[name] for name in Headline.__dataclass_fields__ if name.startswith("n_")}
    return Headline(
        condition=str(row["condition"]),
        **counts,
        unscored_reasons=row["unscored_reasons"],
        cells={s.key + suffix: _cell(row, s, suffix) for s in STATISTICS for suffix in SUBSETS},
        wilson={s.key: numbers.span(row[f"{s.key}_wilson_low"], row[f"{s.key}_wilson_high"], scale=100) for s in RATES},
    )


def _cell(row: dict[Any, Any], statistic: Statistic, suffix: str) -> Cell:
    key = statistic.key + suffix
    numerator, denominator = row[f"{key}_numerator"], row[f"{key}_denominator"]
    signed = statistic.bounds[0] < 0
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return Cell(
        value=numbers.percent(row[key]) if statistic.is_rate else numbers.points(row[key], signed=signed),
        interval=numbers.span(low, high, scale=100 if statistic.is_rate else 1, signed=signed),
        counts=f"{numerator} of {denominator}" if statistic.is_rate else f"n = {denominator}",
        method=row[f"{key}_interval_method"],
        note=row[f"{key}_note"],
    )


def _contrast(row: dict[Any, Any]) -> Contrast:
    statistic = BY_KEY[row["statistic"]]
    rate, signed = statistic.is_rate, statistic.bounds[0] < 0
    values = [
        numbers.percent(row[f"value_{arm}"]) if rate else numbers.points(row[f"value_{arm}"], signed=signed)
        for arm in ("treatment", "control")
    ]
    difference = row["difference"]
    low, high = row["difference_low"], row["difference_high"]
    return Contrast(
        treatment=str(row["treatment"]),
        control=str(row["control"]),
        statistic=statistic.title,
        value_treatment=values[0],
        value_control=values[1],
        difference=Cell(
            numbers.percent_points(difference) if rate else numbers.points(difference, signed=True),
            numbers.span(low, high, scale=100 if rate else 1, signed=True),
            method=row["difference_method"],
        ),
        ratio=Cell(
            numbers.times(row["ratio"]),
            numbers.times_span(row["ratio_low"], row["ratio_high"]),
            method=row["ratio_method"],
        ),
        p=_p(row, "p") + (" exact" if row["p_exact"] else ""),
        p_holm=_p(row, "p_holm"),
        note=row["note"],
        paired=bool(row["paired"]),
    )


def _and(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _p(row: dict[Any, Any], key: str) -> str:
    """A p in words where there is none: two values may be known whose difference cannot be tested."""
    return "not tested" if math.isnan(row[key]) and not math.isnan(row["difference"]) else numbers.p_value(row[key])
