"""Is it enough to steer while the prompt is read? (METHOD section 5: proposed by reviewers, not run.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from esr.steering.interventions import PROMPT_ONLY
from esr.studies.conditions import Condition
from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.lab import Lab


def conditions(_lab: Lab, _settings: Settings) -> list[Condition]:
    """Steering at the tokens of the prompt, none at the response's."""
    return [Condition("prompt-only", schedule=PROMPT_ONLY)]


EXPERIMENT = Experiment(
    "prompt-only",
    "Does steering the prompt alone distract, and is it corrected?",
    conditions,
    arms=lambda _: 1,
    whole_grid=True,
    needs=("incidence",),
)
