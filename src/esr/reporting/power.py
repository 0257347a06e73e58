"""What a study of this size can see, in sentences: the other half of a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from esr.analysis.metrics import summarise
from esr.analysis.power import Pilot, directions_needed, minimum_change, pilot
from esr.errors import UserError
from esr.reporting.headline import headlines
from esr.reporting.numbers import percent, percent_points
from esr.studies.conditions import CONTROL
from esr.studies.config import StudyConfig
from esr.studies.study import Study

PUBLISHED = 0.038
"""ESR rate of Llama-3.3-70B (arXiv 2602.06941 v1): taken where a study has no rate of its own yet."""
PUBLISHED_FALL = -0.25
"""How much of it ablating off-topic detectors took away there."""
ASSUMED = Pilot(PUBLISHED, 0.1, 0.3)
"""Where nothing is measured: moderately alike pairs of a direction, moderately alike arms of a pair."""


def power_lines(folder: Path, config: StudyConfig, rate: float | None = None, change: float | None = None) -> list[str]:
    """Which change of the ESR rate the study's directions show with 80 % power, and how many a given change needs.

    rate: of the control, 0-1; default: this study's, else the published one. change: absolute, in 0-1, negative for a
    fall; default: a quarter of the rate less. Raises UserError for values out of range.
    """
    found = _pilot(folder)
    expected = found.pilot.rate if rate is None else rate
    whence = found.rate_from if rate is None else f"Rate: {percent(rate)}, as given by --rate."
    wanted = PUBLISHED_FALL * expected if change is None else change
    directions, each = config.directions.count, config.prompts.per_direction
    icc, correlation = found.pilot.icc, found.pilot.correlation
    try:
        fall, rise = minimum_change(directions, expected, each, icc, correlation)
        needed = directions_needed(expected, wanted, each, icc, correlation) if wanted or change is not None else None
    except UserError as error:
        raise UserError(
            error.rule, f"{error.got}. {whence.rstrip('.')}", error.remedy or "Give another --change, or --rate"
        ) from None
    seen = [f"{word} of {percent_points(abs(x)).lstrip('+')}" for word, x in (("a fall", fall), ("a rise", rise))
            if not math.isnan(x)]  # fmt: skip
    lines = [
        f"Power: {directions} directions with {each} prompts each, compared paired at an ESR rate of"
        f" {percent(expected)}, show {' or '.join(seen) or 'no change'} with 80 % (two-sided, 5 %)."
    ]
    if needed is not None:
        lines.append(f"To see {percent_points(wanted)} takes {needed} directions.")
    return [*lines, f"{whence} {found.rest_from}"]


@dataclass(frozen=True)
class _Found:
    """What a plan starts from, and in words where it is from."""

    pilot: Pilot
    rate_from: str
    rest_from: str


def _pilot(folder: Path) -> _Found:
    """Rate, ICC and correlation: those of the first condition that is steered as its control is; else the rate of the
    study's control alone; else what was published."""
    study, trials = _measured(folder)
    if study is None or trials.empty:
        return _PUBLISHED
    present = set(trials["condition"])
    boosts = dict(trials.groupby("condition")["boost"].mean().round(9))
    for ran in study.experiments.values():
        for name, control in ran.controls.items():
            if control != CONTROL or not {name, control} <= present or boosts[name] != boosts[control]:
                continue
            try:
                found = pilot(trials, name, control)
            except UserError:
                continue
            if not (math.isnan(found.icc) or math.isnan(found.correlation)) and found.rate > 0:
                return _Found(
                    found,
                    _rate_in_words(trials, control, study.config.seed),
                    f"ICC of the differences {found.icc:.2f} and correlation of pairs {found.correlation:.2f}: its"
                    f" {name} against {control}.",
                )
    control_rows = trials[trials["condition"].eq(CONTROL)]
    if not control_rows["state"].eq("scored").any():
        return _PUBLISHED
    rate = float(summarise(control_rows, seed=study.config.seed)["esr_rate"].iloc[0])
    said = _rate_in_words(trials, CONTROL, study.config.seed)
    if not 0 < rate < 1:  # nothing to take a quarter of
        published = f"No change can be planned from that, so {percent(PUBLISHED)} as published for Llama-3.3-70B."
        return replace(_PUBLISHED, rate_from=f"{said} {published}")
    return _Found(ASSUMED._replace(rate=rate), said, _PUBLISHED.rest_from)


_PUBLISHED = _Found(
    ASSUMED,
    f"Rate: no trial of {CONTROL} is judged in this study, so {percent(PUBLISHED)} as published for Llama-3.3-70B.",
    f"ICC of the differences {ASSUMED.icc:g} and correlation of pairs {ASSUMED.correlation:g} are assumed.",
)


def _rate_in_words(trials: pd.DataFrame, condition: str, seed: int) -> str:
    """A study's own rate with all that must stand beside it."""
    (row,) = headlines(summarise(trials[trials["condition"].eq(condition)], seed=seed))
    cell = row.cells["esr_rate"]
    return (
        f"Rate: this study's {condition}, {cell.value} ({cell.interval}), {cell.counts}; {row.n_unscored} unscored,"
        f" {row.n_degraded} degraded."
    )


def _measured(folder: Path) -> tuple[Study | None, pd.DataFrame]:
    """The study and its trials; none before it has run, or for a plan with settings it does not have."""
    try:
        study = Study.open(folder)
        return study, study.trials
    except UserError:
        return None, pd.DataFrame()
