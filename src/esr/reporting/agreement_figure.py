"""How far the judges of a study agree, as a matrix and in words: ``esr.judging.agreement.Agreement`` in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from esr.errors import UserError
from esr.judging.agreement import Agreement, Estimate
from esr.reporting.figures import LIGHT, WIDE, Theme, _layout, _style, _title, label
from esr.reporting.numbers import UNDEFINED, percent, points
from esr.reporting.results import ResultTable

STATISTICS = ("raw", "kappa", "alpha", "direction", "score_rank", "score_difference", "score_alpha", "boundary")
"""The estimates of an ``Agreement``, in order."""


def agreement_matrix(pairs: Sequence[Agreement], *, theme: Theme = LIGHT, width: float = WIDE) -> Figure:
    """Two matrices over judges, each a triangle: share of the responses that both scored on which they agree whether it
    restarted, and Cohen's kappa of the same; with the 95 % interval by direction and the number of responses.
    """
    if not pairs:
        raise UserError("a figure of agreement needs two judges", "none")
    names = sorted({name for pair in pairs for name in pair.judges})
    wide = width >= WIDE
    side = width / 2 if wide else width
    with _style(theme):
        height = 0.62 * side + 0.42 * len(names) + 0.5
        figure = Figure(figsize=(width, height if wide else 2 * height), layout=_layout())
        axes = figure.subplots(1, 2, sharey=True) if wide else figure.subplots(2, 1)
        panels = {"raw": "Same verdict", "kappa": "Cohen's kappa"}
        for axis, (key, title) in zip(axes, panels.items(), strict=True):
            _title(axis, title, "", theme, width)
            _triangle(axis, names, pairs, key, theme)
        gap = " " if wide else "\n"
        note = f"On whether a response restarts explicitly;{gap}95 % intervals over directions"
        figure.supxlabel(note, fontsize=8, color=theme.muted)
    return figure


def agreement_numbers(pairs: Sequence[Agreement]) -> pd.DataFrame:
    """One row per pair of judges: every estimate with its interval and the number of responses behind it."""
    rows = []
    for pair in pairs:
        row: dict[str, object] = {
            "judge": pair.judges[0], "other_judge": pair.judges[1], "n": pair.n, "directions": pair.directions,
            "unscored": pair.unscored[0], "other_unscored": pair.unscored[1],
            "multi_attempt": pair.multi[0], "other_multi_attempt": pair.multi[1],
        }  # fmt: skip
        for key in STATISTICS:
            estimate: Estimate = getattr(pair, key)
            row |= {key: estimate.value, f"{key}_low": estimate.low, f"{key}_high": estimate.high}
            row[f"{key}_n"] = estimate.n
        rows.append(row)
    with pd.option_context("future.infer_string", False):  # pandas' own strings refuse a lone surrogate
        return pd.DataFrame(rows)


def agreement_table(pairs: Sequence[Agreement]) -> ResultTable:
    """In words, one row per pair."""
    return ResultTable(
        "Agreement of the judges, pair by pair",
        (
            "Judges", "Same verdict on restarts", "Cohen's kappa", "Same direction of change", "Rank of first scores",
            "First scores apart", "Restart's position apart", "Counts",
        ),
        tuple(
            (
                f"{pair.judges[0]}\nand {pair.judges[1]}",
                _cell(pair.raw, rate=True),
                _cell(pair.kappa),
                _cell(pair.direction, rate=True),
                _cell(pair.score_rank),
                _cell(pair.score_difference, one=True),
                _cell(pair.boundary, one=True),
                f"{pair.n:,} both scored\n{pair.multi[0]:,} and {pair.multi[1]:,} restarts;"
                f" unscored {pair.unscored[0]:,} and {pair.unscored[1]:,}",
            )
            for pair in pairs
        ),
        "Below each value its 95 % interval, whole directions drawn, and its number of responses. Same direction of"
        " change: last against first score, where both found a restart. Scores apart: mean absolute difference in"
        " points. Position apart: in characters, of the first restart.",
    )  # fmt: skip


def _triangle(axis: Axes, names: list[str], pairs: Sequence[Agreement], key: str, theme: Theme) -> None:
    axis.set(xlim=(-0.5, len(names) - 1.5), ylim=(len(names) - 0.5, 0.5))
    axis.grid(visible=False)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.tick_params(length=0)
    shown = [label(name.rpartition("/")[2] or name, 18) for name in names]
    axis.set_xticks(range(len(names) - 1), shown[:-1], rotation=25 if len(names) > 2 else 0, fontsize=8)
    axis.set_yticks(range(1, len(names)), shown[1:], fontsize=8)
    axis.tick_params(labelleft=True)
    for pair in pairs:
        x, y = sorted(names.index(name) for name in pair.judges)
        estimate: Estimate = getattr(pair, key)
        value = estimate.value
        strength = 0.0 if math.isnan(value) else min(1.0, max(0.0, value))
        square = ((x - 0.47, y - 0.47), 0.94, 0.94)  # a colour of the theme, so that it changes with it
        axis.add_patch(Rectangle(*square, fc=theme.series[0], alpha=0.45 * strength, lw=0))
        axis.add_patch(Rectangle(*square, fill=False, ec=theme.muted, lw=0.8))
        text = UNDEFINED if math.isnan(value) else percent(value) if key == "raw" else f"{value:.2f}"
        text = text.replace("-", "\N{MINUS SIGN}")
        axis.text(x, y - 0.14, text, ha="center", va="center", fontsize=10.5, fontweight="bold")
        scale = 100 if key == "raw" else 1
        digits = 1 if key == "raw" else 2
        ends = [f"{scale * end:.{digits}f}".replace("-", "\N{MINUS SIGN}") for end in (estimate.low, estimate.high)]
        between = "" if math.isnan(estimate.low) else " to ".join(ends)
        axis.text(x, y + 0.16, f"{between}\nn = {estimate.n:,}".strip(), ha="center", va="center", fontsize=7.5)


def _cell(estimate: Estimate, *, rate: bool = False, one: bool = False) -> str:
    if math.isnan(estimate.value):
        return f"{UNDEFINED}\nn = {estimate.n:,}"
    scale, digits = (100, 1) if rate else (1, 1 if one else 2)
    value = percent(estimate.value) if rate else points(estimate.value) if one else f"{estimate.value:.2f}"
    between = ""
    if not math.isnan(estimate.low):
        between = f"{scale * estimate.low:.{digits}f} to {scale * estimate.high:.{digits}f}, "
    return f"{value}\n{between}n = {estimate.n:,}".replace("-", "\N{MINUS SIGN}")
