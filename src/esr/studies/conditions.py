"""A condition: what differs between two arms of an experiment, as data."""

from __future__ import annotations

from dataclasses import dataclass

from esr.errors import UserError
from esr.steering.interventions import ALL, ClampReads, Schedule


@dataclass(frozen=True)
class Condition:
    """Done to every trial of the grid alike, so conditions share direction, prompt and seed and compare paired."""

    name: str
    """Unique within a study; the ``condition`` column of the trials."""
    template: str = "{prompt}"
    """What the subject is asked. The judge sees the bare prompt."""
    boost_factor: float = 1.0
    """The boost is this times the direction's own threshold; 0 switches steering off."""
    schedule: Schedule = ALL
    """The positions at which the direction is added."""
    clamps: tuple[tuple[int, float], ...] = ()
    """(latent, value) pairs held at every position; value 0 ablates."""
    clamp_reads: ClampReads = "incoming"

    def __post_init__(self) -> None:
        if "{prompt}" not in self.template:
            raise UserError("a condition's template contains {prompt}", self.template)
