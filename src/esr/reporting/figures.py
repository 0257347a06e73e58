"""Figures as pure functions: a frame in, a matplotlib Figure out. No pyplot, no global state, nothing
recomputed.

A figure is ``width`` inches wide and made to be read at 100 pixels per inch: 6.0 for a column, 3.7 for a
telephone. Text from the study goes through ``label``, so it is neither mathtext nor anything invisible.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from esr.analysis.metrics import STATISTICS
from esr.errors import UserError
from esr.reporting.numbers import percent
from esr.reporting.untrusted import printable

WIDE, NARROW = 6.0, 3.7
FONT = "DejaVu Sans"  # ships with matplotlib: the same picture everywhere


@dataclass(frozen=True)
class Theme:
    """Colours of a figure; ``series`` is told apart with any common colour blindness (after Okabe and Ito)."""

    background: str
    ink: str
    muted: str
    rule: str
    series: tuple[str, ...]


LIGHT = Theme("#ffffff", "#1d2329", "#5d6672", "#dde1e6", ("#0072b2", "#c8500a", "#00805d", "#a34a80"))
DARK = Theme("#181b20", "#e7e9ec", "#a3acb8", "#363c45", ("#56b4e9", "#f2a03d", "#35c79c", "#e39cc4"))
_MARKERS = ("o", "D", "s", "^")


def rates(summary: pd.DataFrame, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """Multi-attempt, ESR and improvement rate of every condition of a ``summarise`` frame, with the clustered
    interval and the counts. A rate without a denominator is said to be undefined, and why.
    """
    by_key = {statistic.key: statistic for statistic in STATISTICS}
    panels = {
        "multi_attempt_rate": "of the scored responses restart explicitly",
        "esr_rate": "of the scored responses restart and improve",
        "improvement_rate": "of the multi-attempt responses improve",
    }
    rows = len(summary)
    with _style(theme):
        figure = Figure(figsize=(width, len(panels) * (0.75 + 0.42 * rows) + 0.3), layout=_layout())
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axis, (key, meaning) in zip(axes, panels.items(), strict=True):
            _title(axis, by_key[key].title, meaning, theme, width)
            top = summary[f"{key}_high"].max()
            axis.set_xlim(0, min(1.0, 1.06 * top) if top > 0 else 1.0)
            axis.set_ylim(rows - 0.45, -0.75)
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
            axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            axis.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.3g} %")
            for y, (_, row) in enumerate(summary.iterrows()):
                _rate_row(axis, y, row, key, theme, width)
        figure.supxlabel("Lines: 95 % intervals, clustered by direction", fontsize=8, color=theme.muted)
    return figure


def first_last(trials: pd.DataFrame, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """Above, the first attempt's score of all scored responses, per condition; below, last against first
    score of the multi-attempt ones, where the area of a mark counts coinciding responses.

    Draws the four conditions with the most multi-attempt responses (ties: most scored, then name) and says
    how many it left out.
    """
    scored = trials[trials["state"].eq("scored")]
    order = scored.groupby("condition").agg(multi=("multi_attempt", "sum"), n=("trial", "size")).reset_index()
    order = order.sort_values(["multi", "n", "condition"], ascending=[False, False, True])
    shown = list(order["condition"])[: len(theme.series)]
    with _style(theme):
        figure = Figure(figsize=(width, 2.6 + 0.78 * width), layout=_layout())
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, 0.62 * width])
        _title(top, "First score", "share of all scored responses", theme, width)
        _title(bottom, "Last against first score", "multi-attempt responses", theme, width)
        bins = np.linspace(0, 100, 11)
        handles = []
        restarted = scored[scored["multi_attempt"].astype(bool)]
        largest = restarted.groupby(["condition", "first_score", "last_score"]).size().max() if len(restarted) else 1
        area = min(18.0, 600 / largest)
        for i, condition in enumerate(shown):
            part = scored[scored["condition"].eq(condition)]
            multi = part[part["multi_attempt"].astype(bool)]
            colour, marker = theme.series[i], _MARKERS[i]
            shares = np.histogram(part["first_score"], bins)[0] / len(part)
            top.stairs(shares, bins, color=colour, lw=1.8)
            top.stairs(shares, bins, color=colour, alpha=0.12, fill=True)
            spots = multi.groupby(["first_score", "last_score"]).size().reset_index(name="count")
            for count in sorted(set(spots["count"])):  # marks of one size share one path in the file
                same = spots[spots["count"].eq(count)]
                bottom.scatter(
                    same["first_score"], same["last_score"], s=area * count, color=colour, alpha=0.65,
                    lw=0, marker=marker, zorder=3,
                )  # fmt: skip
            text = f"{label(condition, 24)}: n = {len(part)}, {int(multi['improved'].sum())} of {len(multi)} improved"
            handles.append(Line2D([], [], color=colour, marker=marker, ms=5, label=text))
        top.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.3g} %")
        top.yaxis.set_major_locator(MaxNLocator(3))
        top.set_ylim(bottom=0)
        bottom.plot([0, 100], [0, 100], color=theme.muted, lw=1, ls=(0, (4, 3)), zorder=2)
        bottom.set(xlim=(-3, 103), ylim=(-3, 103), xlabel="first score", ylabel="last score")
        bottom.grid(axis="y", color=theme.rule, lw=0.7)
        middle = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True, "ha": "center"}
        bottom.text(50, 51.5, "improved", color=theme.muted, fontsize=8.5, va="bottom", **middle)
        bottom.text(50, 48.5, "not improved", color=theme.muted, fontsize=8.5, va="top", **middle)
        if not scored["multi_attempt"].any():
            bottom.text(50, 75, "no multi-attempt responses", ha="center", color=theme.muted)
        if len(order) > len(shown):
            handles.append(Line2D([], [], ls="", label=f"{len(order) - len(shown)} more conditions not drawn"))
        _legend(figure, handles, columns=1)
    return figure


def thresholds(calibration: pd.DataFrame, target: float, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """Left, every direction's threshold and its interval, sorted; right, the mean first score reached there,
    against the target. Directions without a threshold stand below, with the bounds that were searched in
    vain.

    ``calibration`` has the columns ``esr.reporting.view.CALIBRATION``. More than 60 directions go without
    names.
    """
    if calibration.empty:
        raise UserError("a figure of thresholds needs at least one direction", "an empty frame")
    table = calibration.assign(failed=calibration["status"].ne("calibrated"))
    table = table.sort_values(["failed", "threshold"], kind="stable", ignore_index=True)
    failed = int(table["failed"].sum())
    named = len(table) <= 60
    with _style(theme):
        height = 1.25 + (0.185 * len(table) if named else 6.0)
        figure = Figure(figsize=(width, height), layout=_layout())
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
        _title(left, "Threshold", "boost, with its interval", theme, width)
        _title(right, "Score", f"there; target {target:g}", theme, width)
        handles = []
        styles = {
            "calibrated": (theme.series[0], "-", "o", 0.55),
            "uncalibrated": (theme.series[1], (0, (1, 1.5)), "x", 1.0),
        }
        size, line = (4.5, 2.0) if named else (2.5, 0.8)
        for status, (colour, style, marker, alpha) in styles.items():
            part = table[table["failed"].eq(status == "uncalibrated")]
            if part.empty:
                continue
            left.hlines(part.index, part["low"], part["high"], color=colour, lw=line, ls=style, alpha=alpha)
            left.plot(part["threshold"], part.index, marker, color=colour, ms=size)
            right.plot(part["achieved"], part.index, marker, color=colour, ms=size)
            text = f"{status} (n = {len(part)})"
            handles.append(Line2D([], [], ls="", color=colour, marker=marker, ms=5, label=text))
        right.axvline(target, color=theme.ink, lw=1, zorder=1)
        right.set_xlim(-3, 103)
        right.set_xticks([0, 50, 100])
        left.set_xlim(left=0)
        left.xaxis.set_major_locator(MaxNLocator(4))
        left.set_ylim(len(table) - 0.4, -0.6)
        if failed and failed < len(table):
            for axis in (left, right):
                axis.axhline(len(table) - failed - 0.5, color=theme.muted, lw=0.7)
        if named:
            names = [_direction_name(row, 24 if width >= WIDE else 13) for _, row in table.iterrows()]
            left.set_yticks(range(len(table)), names, fontsize=8)
        else:
            left.set_ylabel("directions, by threshold")
        for axis in (left, right):
            axis.spines["left"].set_visible(False)
            axis.tick_params(axis="y", length=0)
        _legend(figure, handles, columns=2)
    return figure


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """The figure as PDF with text as text; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasPdf(figure)
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format="pdf", metadata={"Creator": None, "Producer": None, "CreationDate": None})
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as SVG with text as text, in a font that is anywhere; the same figure gives the same text."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "esr"}):
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    fonts = f"text{{font-family:'{FONT}',Verdana,Arial,sans-serif!important}}"
    return buffer.getvalue().replace('<style type="text/css">', f'<style type="text/css">{fonts}', 1)


def themed(svg: str, theme: Theme = LIGHT, dark: Theme = DARK) -> str:
    """An SVG drawn in ``theme`` that shows itself in ``dark`` where the reader prefers that, by its own style sheet."""
    names = [f"--c{i}" for i in range(len(_colours(theme)))]
    variables = dict(zip(_colours(theme), (f"var({name})" for name in names), strict=True))

    def tag(match: re.Match[str]) -> str:  # and not the text between tags, which has no angle brackets
        return re.sub(r"#[0-9a-f]{6}\b", lambda colour: variables.get(colour[0], colour[0]), match[0])

    light, other = (
        "svg{" + ";".join(f"{name}:{colour}" for name, colour in zip(names, _colours(look), strict=True)) + "}"
        for look in (theme, dark)
    )
    style = f"{light}@media screen and (prefers-color-scheme:dark){{{other}}}"
    return re.sub(r"<[^>]*>", tag, svg).replace('<style type="text/css">', f'<style type="text/css">{style}', 1)


def label(text: object, limit: int) -> str:
    """Untrusted text for a figure: one line of at most ``limit`` characters, no mathtext, and a box for every
    character that the font lacks (the tables beside the figures hold the text itself).
    """
    shown = printable(text)
    shown = shown if len(shown) <= limit else shown[: limit - 1] + "…"
    return "".join(c if ord(c) in _glyphs() else "□" for c in shown).replace("$", r"\$")


def _colours(theme: Theme) -> tuple[str, ...]:
    return (theme.background, theme.ink, theme.muted, theme.rule, *theme.series)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def _style(theme: Theme) -> AbstractContextManager[None]:
    """Settings for the artists made inside of it; a user's own matplotlib settings do not reach the figure."""
    settings: Any = {
        "text.usetex": False,
        "font.family": [FONT],
        "font.size": 9.5,
        "figure.facecolor": theme.background,
        "savefig.facecolor": theme.background,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.muted,
        "axes.linewidth": 0.8,
        "axes.labelcolor": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "x",
        "grid.color": theme.rule,
        "grid.linewidth": 0.7,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
    }
    return mpl.rc_context(settings)


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.05, hspace=0.0)


def _title(axis: Axes, name: str, meaning: str, theme: Theme, width: float) -> None:
    """The panel's name and, where there is room, what it shows."""
    title = axis.set_title(name, loc="left", fontweight="bold", fontsize=10.5)
    if width < WIDE:
        return
    note = axis.annotate(
        meaning, (1, 0), xycoords=title, xytext=(6, 2.5), textcoords="offset points",
        fontsize=8.5, color=theme.muted, annotation_clip=False,
    )  # fmt: skip
    note.set_in_layout(False)


def _rate_row(axis: Axes, y: int, row: pd.Series, key: str, theme: Theme, width: float) -> None:
    """The condition and its numbers in one line of text, the interval below it."""
    across = axis.get_yaxis_transform()
    name = axis.text(0, y - 0.3, label(row["condition"], 24), transform=across, va="center")
    if width >= WIDE:
        axis.annotate(
        f"{row['n_directions']} directions", (1, 0), xycoords=name, xytext=(6, 0), textcoords="offset points",
        va="bottom", fontsize=8.5, color=theme.muted,
    )  # fmt: skip
    below = int(row[f"{key}_denominator"])
    if not below:
        axis.text(
            0, y + 0.08, f"undefined: {row[f'{key}_note']}", transform=across, va="center",
            color=theme.muted, fontsize=8.5, style="italic",
        )  # fmt: skip
        return
    value = float(row[key])
    text = f"{percent(value)}\u2003{int(row[f'{key}_numerator'])} of {below}"
    axis.text(1, y - 0.3, text, transform=across, va="center", ha="right")
    colour = theme.series[0]
    axis.hlines(
        y + 0.08,
        row[f"{key}_low"],
        row[f"{key}_high"],
        color=colour,
        lw=4,
        alpha=0.45,
        capstyle="butt",
        clip_on=False,
    )
    axis.plot([value], [y + 0.08], "o", color=colour, ms=7.5, clip_on=False, zorder=4)


def _direction_name(row: pd.Series, limit: int) -> str:
    text = str(row["label"]) or str(row["direction"])
    return label(text, limit)


def _legend(figure: Figure, handles: list[Line2D], *, columns: int) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5)
