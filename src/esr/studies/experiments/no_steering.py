"""Is it caused by steering? The same grid, steering off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esr.studies.conditions import Condition
from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.lab import Lab


def conditions(_lab: Lab, _settings: Settings) -> list[Condition]:
    """The same directions, prompts and seeds with a boost of 0."""
    return [Condition("no-steering", boost_factor=0.0)]


EXPERIMENT = Experiment(
    "no-steering",
    "Does the subject correct itself without steering?",
    conditions,
    arms=lambda _: 1,
    whole_grid=True,
)
