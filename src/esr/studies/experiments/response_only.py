"""Is it enough to steer the response? The prompt's tokens are left as they are, so the question is read undisturbed.
(METHOD section 5: proposed by reviewers, not run.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from esr.steering.interventions import RESPONSE_ONLY
from esr.studies.conditions import Condition
from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.lab import Lab


def conditions(_lab: Lab, _settings: Settings) -> list[Condition]:
    """Steering at the response's tokens, none at the prompt's."""
    return [Condition("response-only", schedule=RESPONSE_ONLY)]


EXPERIMENT = Experiment(
    "response-only",
    "Does an undisturbed question help the subject to notice?",
    conditions,
    arms=lambda _: 1,
    whole_grid=True,
    needs=("incidence",),
)
