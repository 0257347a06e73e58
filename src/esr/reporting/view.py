"""What a report is made from: plain data, filled by whoever holds the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from esr.errors import UserError
from esr.judging.agreement import Agreement
from esr.reporting.viewer import TokenReadings
from esr.subjects.published_figures import PublishedFigure

CALIBRATION = (
    "direction", "label", "threshold", "low", "high", "achieved", "achieved_n", "generations", "status", "reason",
    "efficacy_drop", "promotion", "promoted",
)  # fmt: skip
"""One row per direction tried. ``threshold`` in units of the boost, NaN when none was found;
``low``..``high`` its interval, or the bounds searched in vain; ``achieved`` the mean first score over
``achieved_n`` responses there; ``generations`` spent; ``status`` "calibrated" or anything else, with a
``reason``; ``efficacy_drop`` points of score lost at the most effective boost tried, NaN without that gate;
``promotion`` of restart words in standard deviations of the direction's logit effects, and whether that counts as
``promoted``. Shown where there are: ``stopped``, why the search ended, ``surrogate``, the threshold predicted
without a generation, and ``at_bound``, the bound at which the interval ends.
"""
EXCLUSIONS = ("step", "rule", "excluded", "left")
"""One row per step of choosing directions, in order: the rule, how many it excluded, how many were left."""
STAGES = ("stage", "seconds", "tokens")
"""One row per stage in order; ``tokens`` generated, NaN where none are."""
JUDGES = (
    "name", "own", "judged", "unscored", "calls", "uncounted", "input_tokens", "cached_tokens", "output_tokens",
    "dollars",
)  # fmt: skip
"""One row per judge: whether it is the one the rates are by, responses judged and left unscored; what its calls used as
``esr.studies.study.Study.judge_usage`` has it, NaN where nothing was stored (the rule judge, older studies).
"""


@dataclass(frozen=True)
class ActivationTables:
    """What ``esr.analysis`` makes of the readings around restarts."""

    regions: pd.DataFrame
    """``esr.analysis.activation_regions.region_table``."""
    comparisons: pd.DataFrame
    """``esr.analysis.activation_comparisons.compare_activations``."""
    tokens: pd.DataFrame
    """``esr.analysis.activation_courses.token_course``."""
    normalised: pd.DataFrame
    """``esr.analysis.activation_courses.normalised_course``."""


@dataclass(frozen=True)
class ExperimentView:
    """One experiment of the study."""

    key: str
    question: str
    figure: str
    """How it is drawn: ``esr.studies.experiments.registry.Experiment.figure``."""
    controls: Mapping[str, str | None]
    """Its conditions in order, measured or not, and the condition each is compared with, if any."""
    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    """``esr.analysis.paired.compare_pairs`` of its conditions; may be empty."""
    result: Any = None
    """What its work found, as plain data; holds untrusted labels."""
    activations: ActivationTables | None = None
    """What was read around restarts."""
    dose: pd.DataFrame | None = None
    """``esr.finetuning.dose.dose_response``."""


@dataclass(frozen=True)
class StudyView:
    """Everything the report shows. Frames are not copied; the report does not change them."""

    title: str
    trials: pd.DataFrame
    """Columns of ``esr.analysis.trials.COLUMNS``."""
    calibration: pd.DataFrame
    """Columns ``CALIBRATION``; may be empty."""
    exclusions: pd.DataFrame
    """Columns ``EXCLUSIONS``; may be empty."""
    stages: pd.DataFrame
    """Columns ``STAGES``; may be empty."""
    settings: Mapping[str, Any]
    """The study's settings; nested mappings are shown with dotted names."""
    provenance: Mapping[str, Any]
    """Versions, seeds, hashes, device, date."""
    is_organism: bool
    """Whether the subject is one of the package's organisms: the report then says what that is no evidence
    for.
    """
    experiments: tuple[ExperimentView, ...] = ()
    """In order. Conditions that belong to none are shown among the headline results."""
    control: str = "no-steering"
    """What conditions that belong to no experiment are compared with, when it is there."""
    target: float = 30.0
    """Mean first score that calibration aimed at, 0-100."""
    method: str = ""
    """How thresholds were searched for: ``pooled`` or ``bisection``; empty when not known."""
    tolerance: float = 7.0
    """Score points of ``pooled`` within which a threshold counts as narrow."""
    seed: int = 0
    """Seeds the bootstrap and the permutations."""
    notes: tuple[str, ...] = ()
    """Sentences shown below the headline table."""
    tokens: TokenReadings | None = None
    """What was read on single tokens: the episode viewer shades them."""
    judges: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(JUDGES)))
    """Columns ``JUDGES``; may be empty."""
    agreement: tuple[Agreement, ...] = ()
    """Of every pair of judges; empty with one judge."""
    agreement_note: str = ""
    """What must be known of it besides."""
    published: tuple[PublishedFigure, ...] = field(default=())
    """Shown with the experiment whose key their ``condition`` begins with. Never for an organism."""

    def __post_init__(self) -> None:
        frames = {
            "calibration": (self.calibration, CALIBRATION),
            "exclusions": (self.exclusions, EXCLUSIONS),
            "stages": (self.stages, STAGES),
            "judges": (self.judges, JUDGES),
        }
        for name, (frame, columns) in frames.items():
            missing = [column for column in columns if column not in frame.columns]
            if missing:
                raise UserError(f"the {name} frame has its columns", f"no {', '.join(missing)}")
        if self.is_organism and self.published:
            raise UserError(
                "published figures belong to the published subjects", "some for an organism", "Leave them out"
            )
