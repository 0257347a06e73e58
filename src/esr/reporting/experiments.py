"""How each experiment is drawn, for the report and for ``Study.figure``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from esr.analysis.metrics import summarise
from esr.errors import UserError
from esr.reporting import activation_figures, dose_figure, experiment_figures
from esr.reporting.results import is_discovery
from esr.reporting.view import ExperimentView

if TYPE_CHECKING:
    from esr.studies.study import Study

_FOREST = (
    "Rates per condition, and the difference to the control on the trials that both share; dashed: the control's rate"
    " on those."
)
_SWEEP = (
    "Against the boost: as a multiple of each direction's own threshold, or one boost for all directions, in standard"
    " deviations from the mean threshold. Numbers: multi-attempt responses. Points on fewer than"
    f" {experiment_figures.JOINED} responses are not joined."
)
_DETECTORS = (
    "Latents in the order of the search. An AUC of 0.5 separates nothing. Right: the share of matched and of mismatched"
    " pairs on which a latent is active."
)
_COURSE = "Mean activation around the restart, in tokens. Controls are aligned at their episode's position."
_STRETCHED = "The same with the text before and after the restart each stretched to one length."
_DOSE = "Incidence of each adapter at its own thresholds, against the share of self-correction examples."
_REGIONS = "Mean activation per region; controls are cut at their episode's positions. Dashed: unsteered text."


@dataclass(frozen=True)
class Drawing:
    """One figure, not yet drawn."""

    name: str
    """What its files are called: lower-case letters, digits and hyphens."""
    caption: str
    draw: Callable[..., Figure]
    """Takes ``theme`` and ``width``, as the functions of ``esr.reporting.figures``."""
    numbers: Mapping[str, pd.DataFrame]
    """What it is drawn from, by what is added to the name: "" for the most important frame."""


def figure(study: Study, key: str, **look: object) -> Figure:
    """The first of an experiment's figures. ``look``: ``theme`` and ``width``.

    Raises UserError when the study has not run it, or nothing can be drawn of it.
    """
    from esr.reporting.assemble import experiment_views, with_tables

    trials = study.trials
    found = experiment_views(study, trials, [key])
    if not found:
        known = ", ".join(study.experiments) or "none"
        raise UserError("an experiment that is drawn has run", key, f"Have run: {known}")
    (experiment,) = found
    mine = trials[trials["condition"].isin(list(experiment.controls))] if len(trials) else trials
    summary = summarise(mine, seed=study.config.seed) if len(mine) else pd.DataFrame()
    drawings = drawn(with_tables(study, experiment), summary, levels(mine, study.calibration))
    if not drawings:
        raise UserError("an experiment that is drawn has something to draw", f"nothing in {key}")
    return drawings[0].draw(**look)


def drawn(experiment: ExperimentView, summary: pd.DataFrame, boosts: pd.DataFrame) -> list[Drawing]:
    """What can be drawn of an experiment, the most important first. ``summary``: ``summarise`` of its trials, at least;
    ``boosts``: their ``levels``."""
    key, drawings = safe_name(experiment.key), []
    if (table := detector_table(experiment)) is not None:
        draw: Callable[..., Figure] = partial(experiment_figures.detectors, table)
        drawings.append(Drawing(f"{key}-detectors", _DETECTORS, draw, {"": table}))
    if (read := experiment.activations) is not None:
        for name, caption, function, frame in (
            ("tokens", _COURSE, activation_figures.time_courses, read.tokens),
            ("normalised", _STRETCHED, activation_figures.time_courses, read.normalised),
            ("regions", _REGIONS, activation_figures.region_means, read.regions),
        ):
            drawings.append(Drawing(f"{key}-{name}", caption, partial(function, frame), {"": frame}))
    if experiment.dose is not None:
        draw = partial(dose_figure.dose_response_figure, experiment.dose)
        drawings.append(Drawing(f"{key}-dose", _DOSE, draw, {"": experiment.dose}))
    mine = in_order(experiment, summary)
    points = mine.merge(boosts, on="condition") if experiment.figure == "sweep" and len(mine) else mine.head(0)
    if len(points):
        drawings.append(Drawing(key, _SWEEP, partial(experiment_figures.sweep, points), {"": points}))
    elif len(mine) and experiment.figure != "none":
        compared = {"comparisons": experiment.comparisons} if len(experiment.comparisons) else {}
        draw = partial(experiment_figures.forest, mine, experiment.comparisons)
        drawings.append(Drawing(key, _FOREST, draw, {"": mine} | compared))
    return drawings


def safe_name(text: str) -> str:
    """``text`` as a part of a file name: lower-case letters, digits and single hyphens; never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") or "experiment"


def in_order(experiment: ExperimentView, summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a ``summarise`` frame that are the experiment's, in its order of conditions."""
    if summary.empty:
        return summary
    order = {name: i for i, name in enumerate(experiment.controls)}
    mine = summary[summary["condition"].isin(list(order))]
    return mine.sort_values("condition", key=lambda names: names.map(order), ignore_index=True)


def detector_table(experiment: ExperimentView) -> pd.DataFrame | None:
    """The latents that a discovery found, best first; None when there are none."""
    return _frame(experiment.result["table"]) if is_discovery(experiment) and experiment.result["table"] else None


def levels(trials: pd.DataFrame, calibration: pd.DataFrame) -> pd.DataFrame:
    """Of every condition whose boosts are one multiple of the directions' own thresholds (``by`` "factor"), or one
    boost for all (``by`` "level", in standard deviations from the mean threshold): condition, by, x.

    ``calibration`` has direction and threshold, NaN where there is none. A condition that is both, because all its
    thresholds are equal, counts as a factor.
    """
    thresholds = calibration.set_index("direction")["threshold"].dropna().astype(float)
    mean, spread = float(thresholds.mean()), float(thresholds.std(ddof=0))
    rows = []
    for name, part in trials.groupby("condition", sort=True) if len(trials) else ():
        boosts = part["boost"]
        factors = boosts / part["direction"].map(thresholds)
        if np.allclose(factors, factors.iloc[0], rtol=1e-6):
            rows.append((name, "factor", float(factors.iloc[0])))
        elif np.allclose(boosts, boosts.iloc[0], rtol=1e-6) and spread > 0:
            rows.append((name, "level", float((boosts.iloc[0] - mean) / spread)))
    return _frame(rows, columns=["condition", "by", "x"])


def _frame(rows: list[Any], **options: Any) -> pd.DataFrame:
    """Text stays as Python holds it: pandas' own string type refuses the lone surrogates of an untrusted label."""
    with pd.option_context("future.infer_string", False):
        return pd.DataFrame(rows, **options)
