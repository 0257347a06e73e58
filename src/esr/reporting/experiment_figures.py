"""Figures of experiments, drawn as those of ``esr.reporting.figures``: frames of tested functions in, matplotlib
Figures out. Counts stand in the figure, unscored and degraded responses below it.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from esr.errors import UserError
from esr.reporting.figures import _MARKERS, LIGHT, WIDE, Theme, _layout, _legend, _style, _title, label

RATES = {"multi_attempt_rate": "multi-attempt", "esr_rate": "ESR"}
"""What a forest shows -> its name."""
_PITCH = {"multi_attempt_rate": 0.0, "esr_rate": 0.25}
"""Where its marks stand below the name, in rows."""
DETECTORS = 20
"""Latents drawn at most."""
JOINED = 10
"""A line through fewer responses than this would be one of noise."""


def forest(summary: pd.DataFrame, comparisons: pd.DataFrame, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """One row per condition of a ``summarise`` frame, in its order: multi-attempt and ESR rate with the clustered
    interval, and, where ``comparisons`` (``compare_pairs``) has the condition, the control's value on the shared trials
    as a dashed line and, in a second panel, the difference to it.
    """
    if summary.empty:
        raise UserError("a figure of conditions needs at least one", "none")
    compared = len(comparisons) > 0
    with _style(theme):
        figure = Figure(figsize=(width, 1.5 + 0.5 * len(summary)), layout=_layout())
        axes = figure.subplots(1, 1 + compared, squeeze=False, width_ratios=[1.25, 1][: 1 + compared])[0]
        _title(axes[0], "Rates", "of the scored responses", theme, width)
        for y, (_, row) in enumerate(summary.iterrows()):
            _name(axes[0], y, row, theme)
            for i, key in enumerate(RATES):
                _mark(axes[0], y, key, row[key], row[f"{key}_low"], row[f"{key}_high"], theme.series[i])
        for axis in axes:
            axis.set_ylim(len(summary) - 0.45, -0.75)
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
            axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        top = summary[[f"{key}_high" for key in RATES]].max().max()
        if compared:
            top = max(top, comparisons.loc[comparisons["statistic"].isin(RATES), "value_control"].max())
        axes[0].set_xlim(0, min(1.0, 1.06 * top) if top > 0 else 1.0)
        axes[0].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.3g} %"))
        if compared:
            _title(axes[1], "Difference", "to the control", theme, width)
            _differences(axes, summary, comparisons, theme)
        handles = [
            Line2D([], [], color=theme.series[i], marker=_MARKERS[i], ms=5.5, lw=0, label=name)
            for i, name in enumerate(RATES.values())
        ]
        if compared:
            handles.append(Line2D([], [], color=theme.muted, lw=1.1, ls=(0, (3, 2)), label="its control"))
        _foot(figure, handles, _counts(summary, width), 3, theme)
    return figure


def sweep(points: pd.DataFrame, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """Rates and first score against the boost, with clustered intervals: a ``summarise`` frame with the columns ``by``
    ("factor" of each direction's threshold, or "level" in standard deviations from the mean threshold) and ``x``. One
    column of panels for each ``by``. At the improvement rate, its own number of responses.
    """
    if points.empty:
        raise UserError("a figure of a sweep needs at least one boost", "none")
    meanings = {"factor": "boost / own threshold", "level": "boost, sd from the mean threshold"}
    if width < WIDE:
        meanings = {"factor": "boost / threshold", "level": "boost (sd)"}
    columns = [by for by in meanings if points["by"].eq(by).any()]
    panels = {
        "Rates": (("multi_attempt_rate", "esr_rate"), "of the scored responses"),
        "Improvement": (("improvement_rate",), "of the multi-attempt responses; their number"),
        "First score": (("mean_first_score",), "mean, 0 to 100"),
    }
    with _style(theme):
        figure = Figure(figsize=(width, 6.6), layout=_layout())
        grid = figure.subplots(len(panels), len(columns), sharex="col", sharey="row", squeeze=False)
        for axes, (name, (keys, meaning)) in zip(grid, panels.items(), strict=True):
            _title(axes[0], name, meaning, theme, width)
            for axis, by in zip(axes, columns, strict=True):
                axis.grid(axis="both")
                part = points[points["by"].eq(by)].sort_values("x")
                for key in keys:
                    _line(axis, part, key, theme, width)
            rate = keys[0] != "mean_first_score"
            top = 100 if not rate else points[[f"{key}_high" for key in keys]].max().max()
            axes[0].set_ylim(0, 1.06 * top if top > 0 else 1.0)
            axes[0].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            if rate:
                axes[0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))
        for axis, by in zip(grid[-1], columns, strict=True):
            axis.set_xlabel(meanings[by])
            axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        names = RATES | {"improvement_rate": "improvement", "mean_first_score": "first score"}
        handles = [
            Line2D([], [], color=theme.series[i], marker=_MARKERS[i], ms=5.5, lw=1.5, label=text)
            for i, text in enumerate(names.values())
        ]
        _foot(figure, handles, _counts(points, width), 4 if width >= WIDE else 2, theme)
    return figure


def detectors(table: pd.DataFrame, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """The latents of a discovery's table, best first, chosen ones filled: AUC with its interval, Cohen's d, and the
    share of matched and mismatched pairs on which each is active. At most ``DETECTORS``, and how many are not drawn.
    """
    if table.empty:
        raise UserError("a figure of detectors needs at least one latent", "none")
    shown = table.head(DETECTORS).reset_index(drop=True)
    with _style(theme):
        figure = Figure(figsize=(width, 1.5 + 0.22 * len(shown)), layout=_layout())
        axes = figure.subplots(1, 3, sharey=True, width_ratios=[1.3, 0.9, 1.1])
        titles = {"AUC": "with its interval", "Cohen's d" if width >= WIDE else "d": "", "Active": "on pairs"}
        for axis, (name, meaning) in zip(axes, titles.items(), strict=True):
            _title(axis, name, meaning, theme, width)
            axis.tick_params(axis="y", length=0)
            axis.spines["left"].set_visible(False)
            axis.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        first, second = theme.series[:2]
        for y, row in shown.iterrows():
            fill: dict[str, Any] = {} if row["chosen"] else {"mfc": theme.background}
            axes[0].hlines(y, row["auc_low"], row["auc_high"], color=first, lw=3, alpha=0.45)
            axes[0].plot([row["auc"]], [y], _MARKERS[0], color=first, ms=5.5, **fill)
            axes[1].plot([row["d"]], [y], _MARKERS[0], color=first, ms=5.5, **fill)
            axes[2].hlines(y, *sorted((row["rate_matched"], row["rate_mismatched"])), color=theme.rule, lw=1.5)
            axes[2].plot([row["rate_matched"]], [y], _MARKERS[1], color=second, ms=5, **fill)
            axes[2].plot([row["rate_mismatched"]], [y], _MARKERS[0], color=first, ms=5.5, **fill)
        axes[0].axvline(0.5, color=theme.muted, lw=1, ls=(0, (3, 2)), zorder=1)
        axes[1].axvline(0, color=theme.muted, lw=1, ls=(0, (3, 2)), zorder=1)
        axes[2].set_xlim(-0.04, 1.04)
        axes[2].set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"] if width >= WIDE else ["0", "½", "1"])
        axes[0].set_ylim(len(shown) - 0.4, -0.6)
        names = [label(f"{row['latent']} {row['label']}", 26 if width >= WIDE else 13) for _, row in shown.iterrows()]
        axes[0].set_yticks(range(len(shown)), names, fontsize=8)
        handles = [
            Line2D([], [], ls="", color=first, marker=_MARKERS[0], ms=5.5, label="mismatched pairs, chosen"),
            Line2D([], [], ls="", color=first, marker=_MARKERS[0], ms=5.5, mfc=theme.background, label="not chosen"),
            Line2D([], [], ls="", color=second, marker=_MARKERS[1], ms=5, label="matched pairs"),
        ]
        if len(table) > len(shown):
            handles.append(Line2D([], [], ls="", label=f"{len(table) - len(shown)} more not drawn"))
        _legend(figure, handles, columns=2 if width >= WIDE else 1)
    return figure


def _name(axis: Axes, y: int, row: pd.Series, theme: Theme) -> None:
    name = axis.text(0, y - 0.3, label(row["condition"], 30), transform=axis.get_yaxis_transform(), va="center")
    axis.annotate(
        f"n = {int(row['n_scored'])}", (1, 0), xycoords=name, xytext=(5, 0.5), textcoords="offset points",
        va="bottom", fontsize=8, color=theme.muted,
    )  # fmt: skip
    if not row["n_scored"]:
        axis.text(
            0, y, "no scored responses", transform=axis.get_yaxis_transform(), va="center", fontsize=8.5,
            style="italic", color=theme.muted,
        )  # fmt: skip


def _mark(axis: Axes, y: float, key: str, value: float, low: float, high: float, colour: str) -> None:
    if math.isnan(value):
        return
    y += _PITCH[key]
    axis.hlines(y, low, high, color=colour, lw=3.5, alpha=0.45, capstyle="butt", clip_on=False)
    marker = _MARKERS[list(RATES).index(key)]
    axis.plot([value], [y], marker, color=colour, ms=6, clip_on=False, zorder=4)


def _differences(axes: Any, summary: pd.DataFrame, comparisons: pd.DataFrame, theme: Theme) -> None:
    found = comparisons.set_index(["treatment", "statistic"])
    for y, condition in enumerate(summary["condition"]):
        for i, key in enumerate(RATES):
            if (condition, key) not in found.index:
                continue
            row = found.loc[(condition, key)]
            control = row["value_control"]
            axes[0].vlines(control, y - 0.14, y + 0.42, color=theme.series[i], lw=1.1, ls=(0, (3, 2)), zorder=2)
            limits = row["difference_low"], row["difference_high"]
            _mark(axes[1], y, key, row["difference"], *limits, theme.series[i])
    axes[1].axvline(0, color=theme.muted, lw=1, zorder=1)
    axes[1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:+.3g}".replace("-", "−") if x else "0"))
    axes[1].set_xlabel("percentage points", fontsize=8.5)


def _line(axis: Axes, part: pd.DataFrame, key: str, theme: Theme, width: float) -> None:
    """Points with their intervals, joined where they rest on ``JOINED`` responses or more."""
    i = [*RATES, "improvement_rate", "mean_first_score"].index(key)
    drawn = part[part[key].notna()]
    if len(drawn):  # lines of no point leave the layout without a size
        axis.vlines(drawn["x"], drawn[f"{key}_low"], drawn[f"{key}_high"], color=theme.series[i], lw=3, alpha=0.4)
        axis.plot(drawn["x"], drawn[key], _MARKERS[i], color=theme.series[i], ms=5.5, clip_on=False, zorder=4)
        joined = drawn[key].where(drawn[f"{key}_denominator"] >= JOINED)
        axis.plot(drawn["x"], joined, color=theme.series[i], lw=1.5)
    if key == "improvement_rate":
        for _, row in part.iterrows():
            axis.text(
                row["x"], -0.06, str(int(row[f"{key}_denominator"])), transform=axis.get_xaxis_transform(), ha="center",
                va="top", fontsize=7.5 if width >= WIDE else 6.5, color=theme.muted,
            )  # fmt: skip


def _foot(figure: Figure, handles: list[Line2D], text: str, columns: int, theme: Theme) -> None:
    """The legend, and the counts above it."""
    _legend(figure, handles, columns=columns)
    figure.legends[0].set_title(text)
    figure.legends[0].get_title().set(fontsize=8, color=theme.muted, multialignment="center")


def _counts(summary: pd.DataFrame, width: float) -> str:
    trials, unscored, degraded = (int(summary[f"n_{what}"].sum()) for what in ("trials", "unscored", "degraded"))
    gap = "; " if width >= WIDE else "\n"
    each = sorted({int(n) for n in summary["n_trials"]})
    n = f"{each[0]}" if len(each) == 1 else f"{each[0]} to {each[-1]}"
    return (
        f"lines: 95 % intervals, clustered by direction{gap}{n} trials each,"
        f" {unscored:,} of {trials:,} unscored, {degraded:,} degraded"
    )
