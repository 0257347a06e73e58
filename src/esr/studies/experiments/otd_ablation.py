"""Are the detectors causal? The same grid with all of them clamped to 0 (arXiv 2602.06941)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esr.steering.interventions import ClampReads
from esr.studies.conditions import Condition
from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.lab import Lab


class AblationSettings(Settings):
    """``[experiment] otd-ablation``; shared by the other ablations."""

    clamp_reads: ClampReads = "incoming"
    """Whether the latents are taken off before the direction is added (published) or after: ``steered``."""


def conditions(lab: Lab, settings: AblationSettings) -> list[Condition]:
    """One condition; none when discovery found no detector."""
    detectors = lab.result("otd-discovery")["detectors"]
    clamps = tuple((latent, 0.0) for latent in detectors)
    return [Condition("otd-ablation", clamps=clamps, clamp_reads=settings.clamp_reads)] if clamps else []


EXPERIMENT = Experiment(
    "otd-ablation",
    "Does resistance fall without the detectors?",
    conditions,
    arms=lambda _: 1,
    whole_grid=True,
    needs=("incidence", "otd-discovery"),
    latents=True,
    settings=AblationSettings,
)
