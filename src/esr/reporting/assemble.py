"""From a study on disk to its report."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from esr.analysis.activations import Activations
from esr.analysis.notes import screen_note
from esr.errors import UserError
from esr.finetuning.settings import FOLDER
from esr.judging.agreement import Agreement, pairwise_agreement
from esr.reporting.calibration import achieved, at_bound
from esr.reporting.report import render_report
from esr.reporting.view import ActivationTables, ExperimentView, StudyView
from esr.reporting.viewer import TokenReadings
from esr.studies.study import Study
from esr.subjects.published_figures import PublishedFigure, published_figures

FINE_TUNING = "fine-tuning"
"""Key of the section about ``esr fine-tune``, which is a study of studies and no experiment of the registry."""


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
    judges = _judges(study)
    agreement, note = _agreement(study, judges)
    return StudyView(
        title=study.config.name,
        trials=trials,
        experiments=tuple(with_tables(study, e) for e in experiment_views(study, trials)),
        calibration=_checks(_with_ends(study, achieved(study.calibration, trials)), study.directions),
        exclusions=study.exclusions,
        stages=study.stages,
        settings=study.config.locked(),
        provenance=study.provenance,
        is_organism=study.is_organism,
        target=study.config.calibration.target,
        method=study.config.calibration.method,
        tolerance=study.config.calibration.tolerance,
        seed=study.config.seed,
        notes=(*study.notes, screen_note(trials)),
        judges=judges,
        agreement=agreement,
        agreement_note=note,
        published=_published(study),
        tokens=_tokens(study),
    )


def experiment_views(
    study: Study, trials: pd.DataFrame, keys: Collection[str] | None = None
) -> tuple[ExperimentView, ...]:
    """The experiments that were begun, or those of ``keys`` among them, with comparisons and stored results; see
    ``with_tables`` for the rest. ``trials``: the study's frame.
    """
    found = [
        ExperimentView(key, ran.question, ran.figure, ran.controls, study.comparisons(key, trials), _result(study, key))
        for key, ran in study.experiments.items()
        if keys is None or key in keys
    ]
    if (keys is None or FINE_TUNING in keys) and any((study.folder / FOLDER).glob("share-*/quality.json")):
        found.append(ExperimentView(FINE_TUNING, "Can self-correction be trained in?", "dose", {}))
    return tuple(found)


def with_tables(study: Study, experiment: ExperimentView) -> ExperimentView:
    """With what has to be computed from more than trials: activations around restarts, the dose response."""
    if experiment.figure == "dose":
        from esr.finetuning.dose import dose_response

        return replace(experiment, dose=dose_response(study.folder))
    if experiment.figure != "courses" or not (experiment.result or {}).get("readings"):
        return experiment
    from esr.analysis.activation_comparisons import compare_activations
    from esr.analysis.activation_courses import normalised_course, token_course
    from esr.analysis.activation_regions import region_table

    read, seed = study.activations, study.config.seed
    regions, comparisons = region_table(read, seed=seed), compare_activations(_groups_alone(read), seed=seed)
    courses = (course(read, seed=seed) for course in (token_course, normalised_course))
    return replace(experiment, activations=ActivationTables(regions, comparisons, *courses))


def _groups_alone(read: Activations) -> Activations:
    """The groups' means in place of the latents: tests of every latent would take most of a report's time."""
    weights = read.group_weights()
    readings = [replace(reading, values=reading.values @ weights.astype(np.float32)) for reading in read.readings]
    return Activations(readings, range(len(read.groups)), {name: (i,) for i, name in enumerate(read.groups)})


def _tokens(study: Study) -> TokenReadings | None:
    """What was read on single tokens, where that was done."""
    found = _result(study, "activations") or {}
    if not found.get("readings"):
        return None
    labels = dict(zip(found["latents"], found.get("labels", ()), strict=False))
    return TokenReadings(study.activations, study.token_ends, labels)


AGREEMENT_WORK = 10_000_000
"""Responses times draws of an interval of agreement, at most: half a minute of a report's time."""


def _agreement(study: Study, judges: pd.DataFrame) -> tuple[tuple[Agreement, ...], str]:
    """Of every pair of judges; with many responses from fewer draws, which is said."""
    judgements = study.judgements if len(judges) > 1 else pd.DataFrame()
    if judgements.empty or judgements["judge"].nunique() < 2:
        return (), ""
    pairs = judgements["judge"].nunique() * (judgements["judge"].nunique() - 1) // 2
    draws = max(50, min(1000, AGREEMENT_WORK // (pairs * max(1, judgements["judge"].value_counts().min()))))
    found = pairwise_agreement(judgements, seed=study.config.seed, resamples=draws)
    return tuple(found), "" if draws == 1000 else f"Intervals from {draws} draws, for the number of responses."


def _judges(study: Study) -> pd.DataFrame:
    """The judges at work, with what they used where that was stored."""
    frame = study.judges
    frame["own"] = frame["key"].eq(study.judge_key)
    return frame.merge(study.judge_usage.drop(columns="name"), on="key", how="left")


def _result(study: Study, key: str) -> Any:
    try:
        return study.result(key)
    except UserError:
        return None


def _published(study: Study) -> tuple[PublishedFigure, ...]:
    """Those of the study's subject. Directions from a file are compared with published vectors only."""
    figures = published_figures(study.config.subject)
    if study.config.directions.vectors is not None:
        return tuple(replace(f, condition="incidence") for f in figures if f.condition == "vectors")
    return figures


def _with_ends(study: Study, calibration: pd.DataFrame) -> pd.DataFrame:
    return calibration.assign(at_bound=at_bound(calibration, study.config.calibration))


def _checks(calibration: pd.DataFrame, directions: pd.DataFrame) -> pd.DataFrame:
    """Add what was found out about each direction when it was chosen."""
    found = directions.set_index("id")[["efficacy_drop", "promotion", "promoted"]]
    return calibration.join(found, on="direction")
