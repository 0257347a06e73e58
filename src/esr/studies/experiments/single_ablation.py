"""Which of the detectors? The same grid with one of them clamped to 0 at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from esr.studies.conditions import Condition
from esr.studies.experiments.otd_ablation import AblationSettings
from esr.studies.experiments.registry import Experiment

if TYPE_CHECKING:
    from esr.studies.lab import Lab


class SingleSettings(AblationSettings):
    """``[experiment] single-ablation``."""

    top: int = Field(10, ge=1)
    """How many detectors, best first."""


def conditions(lab: Lab, settings: SingleSettings) -> list[Condition]:
    """One condition per detector."""
    detectors = lab.result("otd-discovery")["detectors"][: settings.top]
    return [
        Condition(f"single-ablation {latent}", clamps=((latent, 0.0),), clamp_reads=settings.clamp_reads)
        for latent in detectors
    ]


EXPERIMENT = Experiment(
    "single-ablation",
    "Which single detector matters?",
    conditions,
    arms=lambda settings: settings.top,
    needs=("incidence", "otd-discovery"),
    latents=True,
    settings=SingleSettings,
)
