"""The headline, the experiments' and the paired tables for the terminal (rich), at most 100 columns wide.

Every string becomes a ``Text``: rich reads no markup in it, and ``printable`` has taken its control
characters.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from esr.reporting.compact import SHOWN, Row, notes
from esr.reporting.headline import Cell, contrasts, grouped_notes, headlines, pairing
from esr.reporting.untrusted import printable

WIDTH = 100


def headline_table(summary: pd.DataFrame, remarks: Sequence[str] = ()) -> Table:
    """Conditions of a ``summarise`` frame: value, clustered 95 % interval and counts; remarks and footnotes below."""
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
    table.caption = _notes(["Intervals: 95 %, clustered by direction.", *remarks, *grouped_notes(rows)])
    return table


def compact_table(title: str, rows: Sequence[Row], remarks: Sequence[str] = ()) -> Table:
    """Two lines per condition: value over interval, difference of the ESR rate to the control, counts; then the
    remarks and the notes that hold for many rows. Rates in per cent. Without any comparison its columns are left out.
    """
    compared = any(row.esr is not None for row in rows)
    table = _table(title)
    table.padding = (0, 1, 0, 0)
    table.add_column("condition")
    headers = ["ESR\n%", "multi-att.\n%", "improved\n% of those", "first\nscore"]
    headers += ["ESR\n− control", "p\nHolm"] * compared + ["n\ndir.", "unsc.\ndegr."]
    for name in headers:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            _short(cell, mark, cell.counts.partition(" ")[2] if key == "improvement_rate" else "")
            for key, (cell, mark) in zip(SHOWN, row.cells, strict=True)
        ]
        h, esr = row.headline, row.esr
        if compared:
            difference = Text("") if esr is None else _two(esr.difference.value, esr.difference.interval)
            cells += [difference, Text("" if esr is None else esr.p_holm)]
        counts = [_two(f"{h.n_trials}", f"{h.n_directions}"), _two(f"{h.n_unscored}", f"{h.n_degraded}")]
        table.add_row(Text(printable(h.condition, 60)), *cells, *counts)
    basis = "Below each value its 95 % interval, clustered by direction"
    basis += "; p: Holm over all p of the experiment." if compared else "."
    table.caption = _notes([basis, *remarks, *notes(rows)])
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
        [
            "Intervals: 95 %, clustered by direction; p by exchanging the arms of whole directions, or, over"
            " multi-attempt responses, from the interval. Holm: over all p of this table.",
            *pairing(paired),
        ]
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


def _short(cell: Cell, mark: str, after: str = "") -> Text:
    """A value without its unit, and its interval with a dash; neither is ever negative here."""
    if not cell.interval:
        return Text(cell.value, style="dim")
    value = f"{cell.value.removesuffix(' %')} {after}".rstrip()
    return _two(value, cell.interval.replace(" to ", "–") + mark)


def _two(first: str, second: str) -> Text:
    return Text(first).append(f"\n{second}", style="dim")


def _notes(lines: list[str]) -> Text:
    return Text("\n".join(printable(line, 400) for line in lines), style="dim")
