"""What a study of this size can see, in sentences: the other half of a plan."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from esr.analysis.power import Pilot, directions_needed, minimum_change, pilot
from esr.errors import UserError
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
    measured, basis = _pilot(folder)
    expected = measured.rate if rate is None else rate
    wanted = PUBLISHED_FALL * expected if change is None else change
    directions, each = config.directions.count, config.prompts.per_direction
    fall, rise = minimum_change(directions, expected, each, measured.icc, measured.correlation)
    seen = [f"{word} of {percent_points(abs(x)).lstrip('+')}" for word, x in (("a fall", fall), ("a rise", rise))
            if not math.isnan(x)]  # fmt: skip
    lines = [
        f"Power: {directions} directions with {each} prompts each, compared paired at an ESR rate of"
        f" {percent(expected)}, show {' or '.join(seen) or 'no change'} with 80 % (two-sided, 5 %)."
    ]
    if wanted:
        needed = directions_needed(expected, wanted, each, measured.icc, measured.correlation)
        lines.append(f"To see {percent_points(wanted)} takes {needed} directions.")
    return [*lines, basis]


def _pilot(folder: Path) -> tuple[Pilot, str]:
    """Rate, ICC and correlation, and where they are from: the first condition that is steered as its control is."""
    study, trials = _measured(folder)
    if study is not None:
        present = set(trials["condition"]) if len(trials) else set()
        boosts = dict(trials.groupby("condition")["boost"].mean().round(9)) if present else {}
        for ran in study.experiments.values():
            for name, control in ran.controls.items():
                if control != CONTROL or not {name, control} <= present or boosts[name] != boosts[control]:
                    continue
                try:
                    found = pilot(trials, name, control)
                except UserError:
                    continue
                if not (math.isnan(found.icc) or math.isnan(found.correlation)):
                    return found, (
                        f"Basis: this study's {name} against {control}: rate {percent(found.rate)}, ICC of the"
                        f" differences {found.icc:.2f}, correlation of pairs {found.correlation:.2f}."
                    )
    return ASSUMED, (
        f"Basis: no pilot in this study; rate {percent(ASSUMED.rate)} as published for Llama-3.3-70B, ICC of the"
        f" differences {ASSUMED.icc:g} and correlation of pairs {ASSUMED.correlation:g} assumed."
    )


def _measured(folder: Path) -> tuple[Study | None, pd.DataFrame]:
    """The study and its trials; none before it has run, or for a plan with settings it does not have."""
    try:
        study = Study.open(folder)
        return study, study.trials
    except UserError:
        return None, pd.DataFrame()
