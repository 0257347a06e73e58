"""From a study on disk to its report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from esr.analysis.notes import implicit_notes, screen_note
from esr.errors import UserError
from esr.reporting.report import render_report
from esr.reporting.view import StudyView
from esr.studies.study import Study


def write_report(study: Study, path: Path) -> Path:
    """Write the study's HTML report and return where it is.

    Raises UserError when no trial has been judged yet, or the file cannot be written.
    """
    render_report(view_of(study), path)
    return path


def view_of(study: Study) -> StudyView:
    """Everything the report shows, read from the study."""
    trials = study.trials
    if trials.empty:
        raise UserError("a report needs judged trials", f"none in {study.folder}", "Run the study first: esr run STUDY")
    return StudyView(
        title=study.config.name,
        trials=trials,
        calibration=_achieved(study.calibration, trials),
        exclusions=study.exclusions,
        stages=study.stages,
        settings=study.config.locked(),
        provenance=study.provenance,
        is_organism=study.is_organism,
        target=study.config.calibration.target,
        seed=study.config.seed,
        notes=(*study.notes, screen_note(trials), *implicit_notes(trials)),
    )


def _achieved(calibration: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Add ``achieved``, the mean first-attempt score of the trials at the threshold, and ``achieved_n``.

    These trials are no part of the search, so the mean is not flattered by it.
    """
    at_threshold = trials[(trials["state"] == "scored") & (trials["boost"] == trials["threshold"])]
    one = min(at_threshold["condition"].unique(), key=lambda name: (name != "incidence", name), default="")
    these = at_threshold[at_threshold["condition"] == one]
    weighted = (these["first_score"] * these["weight"]).groupby(these["direction"]).sum()
    by_direction = these.groupby("direction")["weight"]
    frame = calibration.copy()
    frame["achieved"] = frame["direction"].map(weighted / by_direction.sum()).astype(float)
    frame["achieved_n"] = frame["direction"].map(by_direction.count()).fillna(0).astype(int)
    return frame
