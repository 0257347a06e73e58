"""What a report is made from: plain data, filled by whoever holds the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from esr.errors import UserError

CALIBRATION = (
    "direction", "label", "threshold", "low", "high", "achieved", "achieved_n", "generations", "status", "reason",
)  # fmt: skip
"""One row per direction tried. ``threshold`` in units of the boost, NaN when none was found;
``low``..``high`` its interval, or the bounds searched in vain; ``achieved`` the mean first score over
``achieved_n`` responses there; ``generations`` spent; ``status`` "calibrated" or anything else, with a
``reason``.
"""
EXCLUSIONS = ("step", "rule", "excluded", "left")
"""One row per step of choosing directions, in order: the rule, how many it excluded, how many were left."""
STAGES = ("stage", "seconds", "tokens")
"""One row per stage in order; ``tokens`` generated, NaN where none are."""


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of the literature, shown beside the measured one."""

    condition: str
    quantity: str
    value: str
    """As printed there, for example ``3.8 %``."""
    source: str


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
    control: str = "no-steering"
    """The condition the others are compared with, when it is there."""
    target: float = 30.0
    """Mean first score that calibration aimed at, 0-100."""
    seed: int = 0
    """Seeds the bootstrap and the permutations."""
    notes: tuple[str, ...] = ()
    """Sentences shown below the headline table."""
    published: tuple[PublishedFigure, ...] = field(default=())
    """Never for an organism."""

    def __post_init__(self) -> None:
        frames = {
            "calibration": (self.calibration, CALIBRATION),
            "exclusions": (self.exclusions, EXCLUSIONS),
            "stages": (self.stages, STAGES),
        }
        for name, (frame, columns) in frames.items():
            missing = [column for column in columns if column not in frame.columns]
            if missing:
                raise UserError(f"the {name} frame has its columns", f"no {', '.join(missing)}")
        if self.is_organism and self.published:
            raise UserError(
                "published figures belong to the published subjects", "some for an organism", "Leave them out"
            )
