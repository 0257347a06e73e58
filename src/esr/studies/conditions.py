"""A condition: what differs between two arms of an experiment, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from esr.errors import UserError
from esr.steering.interventions import ALL, ClampReads, Schedule
from esr.studies.grid import Cell

CONTROL = "incidence"
"""What a condition is compared with unless it says otherwise."""


@dataclass(frozen=True)
class Start:
    """Where one trial of a condition begins."""

    cell: Cell
    """Its direction and prompt; the seed draws what follows. Trials of two conditions with one cell are partners."""
    prefill_ids: tuple[int, ...] = ()
    """Tokens the response is made to begin with. The response's limit of tokens counts them, so that all arms of an
    experiment are equally long."""
    source: str = ""
    """Key of the trial whose response the prefill comes from."""
    schedule: Schedule | None = None
    """Instead of the condition's, where positions depend on the source."""


def start_from_json(data: dict[str, Any]) -> Start:
    """The inverse of ``dataclasses.asdict``, after a way through JSON."""
    schedule = None if data["schedule"] is None else Schedule(**data["schedule"])
    return Start(Cell(**data["cell"]), tuple(data["prefill_ids"]), data["source"], schedule)


@dataclass(frozen=True)
class Condition:
    """One arm. Conditions share direction, prompt and seed where they can, and so compare paired."""

    name: str
    """Unique within a study; the ``condition`` column of the trials."""
    control: str | None = CONTROL
    """The condition this one is compared with; None: with nothing."""
    template: str = "{prompt}"
    """What the subject is asked; may hold ``{label}``, the direction's. The judge sees the bare prompt."""
    boost_factor: float = 1.0
    """The boost is this times the direction's own threshold; 0 switches steering off."""
    boost_level: float | None = None
    """Instead: the mean threshold of the study's directions and so many standard deviations."""
    schedule: Schedule = ALL
    """The positions at which the direction is added."""
    clamps: tuple[tuple[int, float], ...] = ()
    """(latent, value) pairs held at every position; value 0 ablates."""
    clamp_reads: ClampReads = "incoming"
    starts: tuple[Start, ...] | None = None
    """The trials, where they are not those of the whole grid from its first token."""
    judged: Literal["whole", "continuation"] = "whole"
    """Whether the judge sees a prefill as part of the response."""

    def __post_init__(self) -> None:
        if "{prompt}" not in self.template:
            raise UserError("a condition's template contains {prompt}", self.template)
