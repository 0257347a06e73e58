"""How often? Every direction at its own threshold, on its own prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esr.studies.conditions import Condition
from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.lab import Lab


def conditions(_lab: Lab, _settings: Settings) -> list[Condition]:
    """Steering at the calibrated threshold: what every other condition is compared with."""
    return [Condition("incidence", control=None)]


EXPERIMENT = Experiment(
    "incidence",
    "How often does the subject notice and recover while it is steered?",
    conditions,
    arms=lambda _: 1,
    whole_grid=True,
)
