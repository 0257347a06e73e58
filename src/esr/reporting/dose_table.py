"""The dose-response table of a fine-tuning for the terminal (rich), at most 100 columns wide."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from esr.reporting.numbers import UNDEFINED, percent, points, span, times, times_span


def dose_table(frame: pd.DataFrame) -> Table:
    """The dose response for the terminal, at most 100 columns wide."""
    table = Table(
        title=Text("Fine-tuned for self-correction: dose and response", style="bold"), title_justify="left",
        caption_justify="left", box=box.SIMPLE_HEAD, width=100, padding=0, pad_edge=False,
    )  # fmt: skip
    for name in ("share", "multi-attempt", "improved", "ESR", "first score", "unsteered", "perplexity"):
        table.add_column(name, justify="left" if name == "share" else "right", no_wrap=True)
    for row in frame.to_dict("records"):
        share = f"{100 * row['share']:.0f} %" if row["adapter"] else "before"
        counts = f"{row['n_trials']} trials\n{row['n_directions']} directions"
        lost = f"{row['n_unscored']} unscored\n{row['n_degraded']} degraded"
        unsteered = f"{points(row['unsteered_first_score'])}\nmulti {percent(row['unsteered_multi_attempt_rate'])}"
        if row["adapter"]:
            change = points(row["quality_difference"], signed=True)
            between = span(row["quality_difference_low"], row["quality_difference_high"], signed=True)
            unsteered += f"\n{change}\n{between}"
            ratio = f"{times(row['perplexity_ratio'])}\n" + (
                times_span(row["perplexity_ratio_low"], row["perplexity_ratio_high"]) or f"interval {UNDEFINED}"
            )
        else:
            ratio = ""
        table.add_row(
            Text(f"{share}\n{counts}\n{lost}"),
            _rate(row, "multi_attempt_rate"),
            _rate(row, "improvement_rate"),
            _rate(row, "esr_rate"),
            Text(
                f"{points(row['mean_first_score'])}\n{span(row['mean_first_score_low'], row['mean_first_score_high'])}"
            ),
            Text(unsteered),
            Text(f"{row['perplexity']:.2f}\n{ratio}"),
        )
    table.caption = Text(
        "Improved: of the multi-attempt responses. Unsteered: mean first score, multi-attempt rate, and the score's"
        " paired difference to before. Perplexity: of ordinary answers to held-out prompts, and its ratio to before."
        " Intervals: 95 %, clustered by direction (perplexity: by prompt).", style="dim",
    )  # fmt: skip
    return table


def _rate(row: dict[Any, Any], key: str) -> Text:
    between = span(row[f"{key}_low"], row[f"{key}_high"], scale=100)
    counts = f"{row[f'{key}_numerator']} of {row[f'{key}_denominator']}"
    return Text("\n".join(line for line in (percent(row[key]), between, counts) if line))
