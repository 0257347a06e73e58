"""The headline and the paired table for the terminal (rich), at most 100 columns wide.

Every string becomes a ``Text``: rich reads no markup in it, and ``printable`` has taken its control
characters.
"""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from esr.reporting.headline import Cell, contrasts, grouped_notes, headlines, pairing
from esr.reporting.untrusted import printable

WIDTH = 100


def headline_table(summary: pd.DataFrame) -> Table:
    """Conditions of a ``summarise`` frame: value, clustered 95 % interval and counts; footnotes below."""
    rows = headlines(summary)
    table = _table("Resistance to steering, per condition")
    for name in ("condition", "ESR", "multi-attempt", "improved of those", "first score", "counts"):
        table.add_column(name, justify="left" if name == "condition" else "right")
    for row in rows:
        counts = Text(f"{row.n_trials} trials\n{row.n_directions} directions\n")
        counts.append(f"{row.n_unscored} unscored\n{row.n_degraded} degraded", style="dim")
        table.add_row(
            Text(printable(row.condition, 40), style="bold"),
            *(
                _stacked(row.cells[key])
                for key in ("esr_rate", "multi_attempt_rate", "improvement_rate", "mean_first_score")
            ),
            counts,
        )
    table.caption = _notes(["Intervals: 95 %, clustered by direction.", *grouped_notes(rows)])
    return table


def paired_table(paired: pd.DataFrame) -> Table:
    """Comparisons of a ``compare_all`` frame: difference and ratio with intervals, p and Holm's p."""
    table = _table("Paired comparisons: same direction, prompt and seed")
    for name in ("", "treatment", "control", "difference", "ratio", "p", "p (Holm)"):
        table.add_column(name, justify="left" if not name else "right")
    previous = None
    for row in contrasts(paired):
        if (row.treatment, row.control) != previous:
            previous = (row.treatment, row.control)
            name = f"{printable(row.treatment, 20)} − {printable(row.control, 20)}"
            table.add_section()
            table.add_row(Text(name, style="bold"))
        table.add_row(
            Text(row.statistic),
            Text(row.value_treatment),
            Text(row.value_control),
            _stacked(row.difference),
            _stacked(row.ratio),
            Text(row.p),
            Text(row.p_holm),
        )
    table.caption = _notes(
        ["Intervals: 95 %, clustered by direction; p by exchanging the arms of whole directions.", *pairing(paired)]
    )
    return table


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold"), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
        width=WIDTH, padding=(0, 1), pad_edge=False,
    )  # fmt: skip


def _stacked(cell: Cell) -> Text:
    text = Text(cell.value, style="" if cell.interval else "dim")
    for line in (cell.interval, cell.counts):
        if line:
            text.append(f"\n{line}", style="dim")
    return text


def _notes(lines: list[str]) -> Text:
    return Text("\n".join(printable(line, 400) for line in lines), style="dim")
