"""Every figure of a report in one list, and written to files: the page and the files show the same ones."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from esr.analysis.metrics import summarise
from esr.errors import UserError
from esr.reporting import agreement_figure, direction_figures, figures
from esr.reporting.compact import HEADLINE, headline_names
from esr.reporting.experiments import Drawing, drawn, levels
from esr.reporting.untrusted import printable
from esr.reporting.view import StudyView

FORMATS: dict[str, Callable[[Figure], bytes]] = {
    "png": figures.png,
    "svg": lambda figure: figures.svg(figure).encode(),
    "pdf": figures.pdf,
}
"""Ending -> how a figure becomes such a file."""
_SCORES = ["trial", "condition", "direction", "prompt_index", "seed", "first_score", "last_score", "multi_attempt",
           "improved", "weight"]  # fmt: skip


def headline_drawings(view: StudyView, shown: pd.DataFrame) -> list[Drawing]:
    """Of the headline's conditions: ``shown`` is their part of a ``summarise`` frame."""
    if shown.empty:
        return []
    trials = view.trials[view.trials["condition"].isin(shown["condition"])]
    return [
        Drawing("rates", "Rates per condition. Each panel has its own scale.", partial(figures.rates, shown),
                {"": shown}),
        Drawing(
            "first-last-scores",
            "First scores of all scored responses, and the last against the first score of those with an explicit"
            " restart; larger marks are several responses.",
            partial(figures.first_last, trials),
            {"": trials.loc[trials["state"].eq("scored"), _SCORES]},
        ),
    ]  # fmt: skip


def calibration_drawings(view: StudyView) -> list[Drawing]:
    """Of thresholds and their quality."""
    found = view.calibration
    if found.empty:
        return []
    drawings = [
        Drawing(
            "thresholds",
            "Thresholds in order; dotted: the bounds searched without success. Right: the mean first score measured at"
            " the threshold, against the target.",
            partial(figures.thresholds, found, view.target),
            {"": found},
        )
    ]
    if found["status"].eq("calibrated").any():
        drawings.append(
            Drawing(
                "calibration-quality",
                "Directions by threshold, by the width of its interval as a share of it, by the mean first score of"
                " trials there (no part of the search), and by the responses spent.",
                partial(direction_figures.calibration_quality, found, view.target),
                {"": found},
            )
        )
    return drawings


def check_drawings(view: StudyView) -> list[Drawing]:
    """Of what was found out about the directions."""
    if view.calibration.empty:
        return []
    caption = (
        "Right: directions that move the score far. High: directions whose own effect on the logits favours restart"
        " words, in standard deviations; such a direction is a confound."
    )
    draw = partial(direction_figures.direction_checks, view.calibration)
    return [Drawing("direction-checks", caption, draw, {"": view.calibration})]


def agreement_drawings(view: StudyView) -> list[Drawing]:
    """Of the judges, when there are several."""
    if not view.agreement:
        return []
    caption = "Whether a response restarts: how often two judges say the same, and how much of that is beyond chance."
    draw = partial(agreement_figure.agreement_matrix, view.agreement)
    return [Drawing("judge-agreement", caption, draw, {"": agreement_figure.agreement_numbers(view.agreement)})]


def all_drawings(view: StudyView) -> list[Drawing]:
    """Every figure of the study's report, in its order, no two of one name."""
    summary = summarise(view.trials, seed=view.seed)
    names = headline_names({e.key: e.controls for e in view.experiments}, summary["condition"])
    boosts = levels(view.trials, view.calibration)
    found = headline_drawings(view, summary[summary["condition"].isin(names)])
    for experiment in view.experiments:
        if experiment.key not in HEADLINE:
            found += drawn(experiment, summary, boosts)
    return [*found, *agreement_drawings(view), *calibration_drawings(view), *check_drawings(view)]


def known_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """Each format once, in order. Raises UserError for one that is not known, or none."""
    wanted = tuple(dict.fromkeys(formats))
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown or not wanted:
        raise UserError(f"a figure's format is one of {', '.join(FORMATS)}", ", ".join(map(repr, unknown)) or "none")
    return wanted


def write_figures(view: StudyView, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write every figure in every format, and beside each what it is drawn from as CSV; the paths written.

    A figure's files are NAME.FORMAT and NAME.csv (with several frames also NAME-FRAME.csv); a folder that is not there
    is made. Raises UserError for another format, or a folder that cannot be written.
    """
    formats = known_formats(formats)
    written: list[Path] = []
    taken: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for drawing in all_drawings(view):
            name = _unused(drawing.name, taken)
            for ending in formats:
                written.append(_write(folder / f"{name}.{ending}", FORMATS[ending](drawing.draw())))
            for part, frame in drawing.numbers.items():
                path = folder / f"{name}{'-' if part else ''}{part}.csv"
                written.append(_write(path, csv_text(frame).encode()))
    except OSError as error:
        raise UserError("figures can be written", f"{folder} ({error.strerror})", "Choose another folder") from error
    return written


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV in UTF-8. Text is printable, and where it begins like a formula of a spreadsheet an apostrophe
    stands before it: labels are somebody else's. Numbers are in full precision, what is undefined is empty.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(frame.columns)
    for row in frame.itertuples(index=False, name=None):
        writer.writerow([_cell(value) for value in row])
    return buffer.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, Mapping):
        value = json.dumps({str(key): item for key, item in value.items()}, default=str)
    if isinstance(value, float) and value != value:
        return ""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _unused(name: str, taken: set[str]) -> str:
    """Two experiments whose keys differ in other characters only get a number."""
    free = next(c for c in (name, *(f"{name}-{k}" for k in range(2, len(taken) + 3))) if c not in taken)
    taken.add(free)
    return free


def _write(path: Path, data: bytes) -> Path:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.close()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
    return path
