"""Figures of activations around restarts, drawn as those of ``esr.reporting.figures``: frames of
``esr.analysis.activation_regions`` and ``esr.analysis.activation_courses`` in, matplotlib Figures out.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from esr.analysis.activation_courses import MIN_ACTIVE
from esr.analysis.activations import KINDS, REGIONS, WHOLE
from esr.errors import UserError
from esr.reporting.figures import _MARKERS, LIGHT, WIDE, Theme, _layout, _legend, _style, _title, label
from esr.reporting.numbers import significant

KIND_TITLES = {"episode": "restarts", "no-recovery": "steered, never restarts", "unsteered": "unsteered"}
_LINES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)))
_PITCH = 0.27
"""Distance of the kinds' marks within a region, in regions."""


def region_means(table: pd.DataFrame, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """One panel per group of a ``region_table`` frame: its mean activation in every region and kind of response with
    the clustered interval and the number of responses; a dashed line at the baseline, the unsteered responses' mean.
    """
    groups = _groups(table[table["unit"].eq("group")], "name")
    with _style(theme):
        figure = Figure(figsize=(width, 2.25 * len(groups) + 0.85), layout=_layout())
        axes = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
        for axis, (name, part) in zip(axes, groups.items(), strict=True):
            _title(axis, label(name, 30), "mean activation per token", theme, width)
            _region_panel(axis, part, theme)
        axes[-1].set_xlabel("lines: 95 % intervals, clustered by direction", fontsize=8, color=theme.muted)
        handles = [
            Line2D([], [], ls="", color=theme.series[i], marker=_MARKERS[i], ms=6, label=KIND_TITLES[kind])
            for i, kind in enumerate(KINDS)
        ]
        handles.append(Line2D([], [], color=theme.muted, lw=1, ls=(0, (4, 3)), label="unsteered baseline"))
        _legend(figure, handles, columns=4 if width >= WIDE else 2)
    return figure


def time_courses(course: pd.DataFrame, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """One panel per group of a ``token_course`` or ``normalised_course`` frame: its mean activation around the restart,
    per kind of response, with the clustered band; below, how many responses contribute to each bin.
    """
    groups = _groups(course, "group")
    tokens = course["alignment"].eq("tokens").all()
    with _style(theme):
        heights = [1.45] * len(groups) + [0.7]
        figure = Figure(figsize=(width, sum(heights) + 0.32 * len(groups) + 1.6), layout=_layout())
        axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axis, (name, part) in zip(axes, groups.items(), strict=False):
            _title(axis, label(name, 30), "mean activation per token", theme, width)
            _course_panel(axis, part, theme)
        _count_panel(axes[-1], next(iter(groups.values())), theme, width)
        for axis in axes:
            axis.axvline(0 if tokens else 1, color=theme.ink, lw=1, zorder=1)
            axis.grid(axis="both")
        axes[-1].set_xlim(course["start"].min(), course["stop"].max())
        if not tokens:
            axes[-1].set_xticks([0, 0.5, 1, 1.5, 2], ["start", "", "restart", "", "end"])
        gap = " " if width >= WIDE else "\n"
        text = (
            f"bands: 95 % per bin, clustered by direction;{gap}none where fewer than {MIN_ACTIVE} directions are active"
        )
        position = "tokens from the restart" if tokens else "position (each side stretched to the same length)"
        axes[-1].set_xlabel(f"{position}\n{text}", fontsize=8, color=theme.muted)
        counts = course.groupby("kind")["n"].max()
        handles = [
            Line2D(
                [], [], color=theme.series[i], lw=2, ls=_LINES[i],
                label=f"{KIND_TITLES[kind]} (n = {counts[kind]})",
            )
            for i, kind in enumerate(KINDS)
        ]  # fmt: skip
        _legend(figure, handles, columns=3 if width >= WIDE else 1)
    return figure


def _groups(frame: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    if frame.empty:
        raise UserError("a figure of activations needs at least one group of latents", "none")
    return {str(name): frame[frame[column].eq(name)] for name in frame[column].unique()}


def _region_panel(axis: Axes, part: pd.DataFrame, theme: Theme) -> None:
    across = axis.get_yaxis_transform()
    drawn = part[part["region"].isin(REGIONS)]
    for _, row in drawn.iterrows():
        kind = KINDS.index(row["kind"])
        y = REGIONS.index(row["region"]) + (kind - 1) * _PITCH
        colour = theme.series[kind]
        axis.text(1.02, y, f"n = {row['n']}", transform=across, va="center", fontsize=8, color=theme.muted)
        if math.isnan(row["mean"]):
            continue
        axis.hlines(y, row["low"], row["high"], color=colour, lw=3.5, alpha=0.45, capstyle="butt", clip_on=False)
        axis.plot([row["mean"]], [y], _MARKERS[kind], color=colour, ms=6, clip_on=False, zorder=4)
    baseline = part.loc[part["region"].eq(WHOLE), "baseline"].iloc[0]
    if not math.isnan(baseline):
        axis.axvline(baseline, color=theme.muted, lw=1, ls=(0, (4, 3)), zorder=1)
    top = np.nanmax([0.0, drawn["high"].max(), drawn["mean"].max()])
    axis.set_xlim(0, 1.05 * top if top > 0 else 1.0)
    axis.set_ylim(len(REGIONS) - 0.55, -0.45)
    axis.set_yticks(range(len(REGIONS)), REGIONS)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: significant(x)))


def _course_panel(axis: Axes, part: pd.DataFrame, theme: Theme) -> None:
    for i, kind in enumerate(KINDS):
        rows = part[part["kind"].eq(kind)].sort_values("start")
        middle = (rows["start"] + rows["stop"]) / 2
        edges = rows[["start", "stop"]].to_numpy().ravel()  # a band per bin, so that a lone one is seen
        low, high = rows["low"].repeat(2), rows["high"].repeat(2)
        axis.fill_between(edges, low, high, color=theme.series[i], alpha=0.22, lw=0)
        axis.plot(middle, rows["mean"], color=theme.series[i], lw=1.8, ls=_LINES[i], zorder=3)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(3))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: significant(y)))


def _count_panel(axis: Axes, part: pd.DataFrame, theme: Theme, width: float) -> None:
    _title(axis, "Responses", "that contribute to each bin", theme, width)
    for i, kind in enumerate(KINDS):
        rows = part[part["kind"].eq(kind)].sort_values("start")
        edges = [*rows["start"], rows["stop"].iloc[-1]]
        axis.stairs(rows["n"], edges, baseline=None, color=theme.series[i], lw=1.8, ls=_LINES[i])
    top = max(1, part["n"].max())
    axis.set_ylim(0, 1.12 * top)
    axis.set_yticks([0, top])
