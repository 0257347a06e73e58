"""The dose-response figure of a fine-tuning, drawn as those of ``esr.reporting.figures``."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from esr.errors import UserError
from esr.reporting.figures import LIGHT, WIDE, Theme, _layout, _legend, _style, _title

PANELS = {
    "multi_attempt_rate": ("Multi-attempt rate", "of the scored responses"),
    "improvement_rate": ("Improvement rate", "of the multi-attempt responses"),
    "esr_rate": ("ESR rate", "of the scored responses"),
}


def dose_response_figure(frame: pd.DataFrame, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """Multi-attempt, improvement and ESR rate against the share of self-correction examples, with clustered intervals
    and the counts above them: a frame of ``esr.finetuning.dose.dose_response``. The study before fine-tuning stands
    hollow at share 0. A rate without a denominator is not drawn, and said to be undefined.
    """
    if frame.empty:
        raise UserError("a dose-response figure needs at least one share", "an empty frame")
    with _style(theme):
        figure = Figure(figsize=(width, 2.2 * len(PANELS) + 0.9), layout=_layout())
        axes = figure.subplots(len(PANELS), 1, sharex=True)
        for axis, (key, (name, meaning)) in zip(axes, PANELS.items(), strict=True):
            _title(axis, name, meaning, theme, width)
            axis.grid(axis="both")
            _panel(axis, frame, key, theme)
        gap = "; " if width >= WIDE else "\n"
        axes[-1].set_xlabel(f"share of self-correction examples\n{gap.join(_notes(frame))}", fontsize=8.5)
        axes[-1].set_xlim(-0.06, 1.06)
        axes[-1].xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.3g} %"))
        style: dict[str, Any] = {"color": theme.series[0], "marker": "o", "ms": 6, "ls": ""}
        handles = [
            Line2D([], [], mfc=theme.background, label="before fine-tuning", **style),
            Line2D([], [], label="fine-tuned, own thresholds", **style),
        ]
        _legend(figure, handles, columns=2 if width >= WIDE else 1)
    return figure


def _panel(axis: Axes, frame: pd.DataFrame, key: str, theme: Theme) -> None:
    drawn = frame[frame[f"{key}_denominator"].gt(0)]
    top = drawn[f"{key}_high"].max() if len(drawn) else 1.0
    axis.set_ylim(0, 1.25 * top if top > 0 else 1.0)  # room for the counts
    axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))
    colour = theme.series[0]
    tuned = drawn[drawn["adapter"].astype(bool)]
    axis.plot(tuned["share"], tuned[key], color=colour, lw=1.2, alpha=0.6)
    for row in drawn.to_dict("records"):
        x, low, high = row["share"], row[f"{key}_low"], row[f"{key}_high"]
        axis.vlines(x, low, high, color=colour, lw=4, alpha=0.4, capstyle="butt", clip_on=False)
        axis.plot(
            [x],
            [row[key]],
            "o",
            color=colour,
            ms=6.5,
            mfc=colour if row["adapter"] else theme.background,
            zorder=4,
            clip_on=False,
        )
        axis.annotate(
            f"{row[f'{key}_numerator']}/{row[f'{key}_denominator']}", (x, high), xytext=(0, 3),
            textcoords="offset points", ha="center", va="bottom", fontsize=7.5, color=theme.muted,
        )  # fmt: skip
    for row in frame[~frame.index.isin(drawn.index)].to_dict("records"):
        axis.annotate(
            "undefined", (row["share"], 0), xytext=(0, 3), textcoords="offset points", ha="center", va="bottom",
            fontsize=7.5, style="italic", color=theme.muted, rotation=90,
        )  # fmt: skip


def _notes(frame: pd.DataFrame) -> list[str]:
    return [
        "lines: 95 % intervals, clustered by direction",
        f"in all {frame['n_unscored'].sum()} unscored, {frame['n_degraded'].sum()} degraded",
    ]
