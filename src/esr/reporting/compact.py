"""One experiment's conditions as words, a row each with the difference to its control, shared by the terminal and the
HTML report. Whatever holds for many rows is said once below them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from esr.analysis.uncertainty import DIRECTIONS_AS_TRIALS
from esr.reporting.headline import Cell, Contrast, Headline, contrasts, headlines
from esr.reporting.view import ExperimentView

SHOWN = ("esr_rate", "multi_attempt_rate", "improvement_rate", "mean_first_score")
"""The statistics of a row, in order."""
MARK = "*"
HEADLINE = ("incidence", "no-steering")
"""Keys of the experiments whose conditions are the headline."""


@dataclass(frozen=True)
class Row:
    """One condition."""

    headline: Headline
    esr: Contrast | None = None
    """Its ESR rate against its control's."""

    @property
    def cells(self) -> list[tuple[Cell, str]]:
        """The cells of ``SHOWN``, each with ``MARK`` where its interval takes every direction as one trial."""
        cells = [self.headline.cells[key] for key in SHOWN]
        return [(cell, MARK if cell.method == DIRECTIONS_AS_TRIALS else "") for cell in cells]


def rows(summary: pd.DataFrame, experiment: ExperimentView | None = None) -> list[Row]:
    """The conditions of a ``summarise`` frame that belong to an experiment, in its order; without one, all."""
    if experiment is None:
        return [Row(headline) for headline in headlines(summary)]
    mine = summary[summary["condition"].isin(list(experiment.controls))]
    found = {headline.condition: headline for headline in headlines(mine)}
    table = experiment.comparisons
    esr = contrasts(table[table["statistic"].eq("esr_rate")]) if len(table) else []
    by_condition = {contrast.treatment: contrast for contrast in esr}
    return [Row(found[name], by_condition.get(name)) for name in experiment.controls if name in found]


def against(experiment: ExperimentView, shown: Sequence[Row]) -> str:
    """What the rows are compared with, in one sentence; empty when nothing is."""
    compared = {row.headline.condition: row.esr for row in shown if row.esr is not None}
    controls = {contrast.control for contrast in compared.values()}
    missing = sorted(
        {c for row in shown if row.esr is None and (c := experiment.controls[row.headline.condition]) is not None}
    )
    sentences = []
    if len(controls) == 1 and len(compared) == len(shown):
        sentences.append(f"Each is compared with {controls.pop()}.")
    elif compared:
        pairs = [f"{name} with {contrast.control}" for name, contrast in compared.items()]
        sentences.append(f"Compared: {'; '.join(pairs)}.")
    if missing:
        sentences.append(f"Not compared, for it has not been measured: {', '.join(missing)}.")
    return " ".join(sentences)


def notes(shown: Sequence[Row]) -> list[str]:
    """What must be known besides the numbers, each said once for all rows."""
    lines = []
    if any(mark for row in shown for _, mark in row.cells):
        lines.append(f"{MARK} Too few events (or too few else): the interval takes every direction as one trial.")
    undefined: dict[str, list[str]] = {}
    for row in shown:
        for why in {cell.note for cell, _ in row.cells if cell.note}:
            undefined.setdefault(why, []).append(row.headline.condition)
    lines += [f"Undefined in {_some(names)}: {why}." for why, names in sorted(undefined.items())]
    reasons = Counter[str]()
    for row in shown:
        reasons.update(row.headline.unscored_reasons)
    if reasons:
        said = ", ".join(f"{reason or 'no reason given'} {n:,}" for reason, n in sorted(reasons.items()))
        lines.append(f"Unscored responses ({said}) are in no denominator.")
    unannounced = sum(row.headline.n_unannounced for row in shown)
    if unannounced:
        lines.append(f"{unannounced:,} more began anew without announcing it (pivot or pretext): no restarts.")
    counts = [(row.headline.n_promoted_directions, row.headline.n_directions) for row in shown]
    promoted, of = max(counts, default=(0, 0))
    if promoted:
        lines.append(f"Up to {promoted} of {of} directions promote restart words themselves.")
    apart = [row.headline.condition for row in shown if row.esr is not None and not row.esr.paired]
    if apart:
        lines.append(f"No trials shared with the control, so compared by direction, not in pairs: {_some(apart)}.")
    return lines


def headline_names(conditions: Mapping[str, Iterable[str]], measured: Iterable[str]) -> list[str]:
    """The measured conditions that the headline shows: those of ``HEADLINE`` and those of no experiment, sorted.

    ``conditions``: of every experiment of the study.
    """
    elsewhere = {name for key, names in conditions.items() if key not in HEADLINE for name in names}
    return sorted(set(measured) - elsewhere)


def in_words(contrast: Contrast) -> str:
    """A difference in one line."""
    difference = contrast.difference
    return (
        f"{contrast.treatment} − {contrast.control}, {contrast.statistic}: {difference.value}"
        f" ({difference.interval or 'no interval'}), p {contrast.p_holm} (Holm)."
    )


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
