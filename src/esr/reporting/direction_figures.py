"""Figures of how good calibration was and what was found out about the directions, drawn as those of
``esr.reporting.figures``: the frame of ``esr.reporting.view.CALIBRATION`` in, matplotlib Figures out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from esr.errors import UserError
from esr.reporting.figures import LIGHT, WIDE, Theme, _layout, _legend, _style, _title
from esr.reporting.numbers import significant

BINS = 16


def calibration_quality(
    calibration: pd.DataFrame, target: float, *, theme: Theme = LIGHT, width: float = WIDE
) -> Figure:
    """Four histograms over directions: threshold, width of its interval as a share of it, mean first score achieved
    there (the target as a line) and generations spent; where a surrogate predicted thresholds (column ``surrogate``),
    found against predicted below. Calibrated directions, and all that were tried for the generations.
    """
    found = calibration[calibration["status"].eq("calibrated")]
    if found.empty:
        raise UserError("a figure of calibration quality needs a calibrated direction", f"none of {len(calibration)}")
    predicted = found.head(0)
    if "surrogate" in found.columns:
        predicted = found[found["surrogate"].notna()].astype({"surrogate": float})
    with _style(theme):
        figure = Figure(figsize=(width, 4.3 + (0.85 * width if len(predicted) else 0)), layout=_layout())
        top: Any = figure
        below: Any = None
        if len(predicted):
            halves: Any = figure.subfigures(2, 1, height_ratios=[4.3, 0.85 * width])
            top, below = halves
        panels: Any = top.subplots(2, 2)
        (threshold, share), (achieved, spent) = panels
        wide = width >= WIDE
        _histogram(threshold, found["threshold"], "Threshold", "boost", theme, wide)
        of = "of the interval, / threshold" if wide else "/ threshold"
        _histogram(share, _relative_width(found), "Width", of, theme, wide)
        share.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.3g} %"))
        there = f"mean first score there; line: target {target:g}" if wide else f"line: target {target:g}"
        _histogram(achieved, found["achieved"], "Achieved score", there, theme, wide, within=(0, 100))
        achieved.axvline(target, color=theme.ink, lw=1.2)
        _histogram(spent, calibration["generations"], "Generations", "per direction", theme, wide)
        if below is not None:
            _found_against_predicted(below.subplots(), predicted, theme, width)
    return figure


def direction_checks(calibration: pd.DataFrame, *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """Every direction by its two checks: how far the score fell at the most effective boost tried, and how far the
    direction itself favours restart words. Those without an efficacy gate stand in a strip on the left.
    """
    if calibration.empty:
        raise UserError("a figure of direction checks needs at least one direction", "an empty frame")
    promoted = calibration["promoted"].astype(bool)
    failed = calibration["status"].ne("calibrated")
    tried = calibration["efficacy_drop"].notna()
    kinds = {
        "used": (~promoted & ~failed, theme.series[0], "o"),
        "promotes restart words": (promoted & ~failed, theme.series[1], "D"),
        "uncalibrated, not used": (failed, theme.muted, "x"),
    }
    with _style(theme):
        figure = Figure(figsize=(width, 3.6), layout=_layout())
        axis = figure.subplots()
        axis.grid(axis="both")
        handles = []
        for name, (those, colour, marker) in kinds.items():
            if not those.any():
                continue
            for gated in (True, False):
                part = calibration[those & tried.eq(gated)]
                x = part["efficacy_drop"] if gated else np.full(len(part), -6.0)
                axis.plot(x, part["promotion"], marker, color=colour, ms=5.5, alpha=0.75, mew=1.4, ls="")
            text = f"{name} (n = {int(those.sum())})"
            handles.append(Line2D([], [], ls="", color=colour, marker=marker, ms=5.5, label=text))
        if not tried.all():
            axis.axvline(-2, color=theme.muted, lw=0.8)
        axis.axhline(0, color=theme.muted, lw=1, ls=(0, (3, 2)), zorder=1)
        low = 0 if tried.all() else -10
        axis.set_xlim(min(low, calibration["efficacy_drop"].min() - 3), 102)
        axis.set_xticks([0, 25, 50, 75, 100])
        if not tried.all():
            axis.set_xticks([-6, 0, 25, 50, 75, 100], ["not\ntried", "0", "25", "50", "75", "100"])
        axis.set_xlabel("efficacy: points that the score fell by")
        axis.set_ylabel("restart promotion (sd)")
        _title(axis, "Checks of the directions", "", theme, width)
        _legend(figure, handles, columns=2 if width >= WIDE else 1)
    return figure


def _relative_width(found: pd.DataFrame) -> pd.Series:
    return (found["high"] - found["low"]) / found["threshold"].where(found["threshold"] > 0)


def _histogram(
    axis: Axes,
    values: pd.Series,
    name: str,
    meaning: str,
    theme: Theme,
    wide: bool,
    within: tuple[float, float] | None = None,
) -> None:
    """Counts of directions, the median as a mark below the bars and in words."""
    data = values.dropna().to_numpy(float)
    axis.set_title(name, loc="left", fontweight="bold", fontsize=10.5)
    axis.set_xlabel(meaning, fontsize=8.5, color=theme.muted)
    axis.grid(visible=False)
    axis.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axis.xaxis.set_major_locator(MaxNLocator(4))
    if not len(data):
        axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", color=theme.muted)
        return
    low, high = within or (min(0.0, data.min()), data.max())
    bins = np.linspace(low, high if high > low else low + 1, BINS + 1)
    axis.hist(data, [*bins], color=theme.series[0], alpha=0.75, edgecolor=theme.background, lw=0.8)
    axis.set_xlim(bins[0], bins[-1])
    middle = float(np.median(data))
    axis.plot([middle], [0], "^", color=theme.series[1], ms=6, clip_on=False, zorder=4)
    text = f"{100 * middle:.3g} %" if name == "Width" else significant(middle)
    if wide:
        axis.set_title(f"median {text}", loc="right", fontsize=8.5, color=theme.muted)
    else:
        axis.set_xlabel(f"{meaning}\nmedian {text}", fontsize=8.5, color=theme.muted)


def _found_against_predicted(axis: Axes, part: pd.DataFrame, theme: Theme, width: float) -> None:
    both = part[["threshold", "surrogate"]].to_numpy(float)
    ends = 0.9 * both.min(), 1.1 * both.max()
    axis.grid(axis="both")
    axis.plot(ends, ends, color=theme.muted, lw=1, ls=(0, (4, 3)))
    axis.vlines(part["surrogate"], part["low"], part["high"], color=theme.series[0], lw=1.5, alpha=0.35)
    axis.plot(part["surrogate"], part["threshold"], "o", color=theme.series[0], ms=4.5)
    axis.set(xlim=ends, ylim=ends, aspect="equal", xlabel="predicted by the surrogate", ylabel="found")
    _title(axis, "Threshold", "found against predicted, with its interval", theme, width)
