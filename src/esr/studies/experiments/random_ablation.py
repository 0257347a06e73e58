"""Or would any latents do? The same grid with random latents clamped to 0, as many as there are detectors, matched with
them on how often and how strongly they are active (arXiv 2602.06941: three sets)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from esr.studies.conditions import Condition
from esr.studies.experiments.otd_ablation import AblationSettings
from esr.studies.experiments.registry import Experiment

if TYPE_CHECKING:
    from esr.studies.lab import Lab


class RandomSettings(AblationSettings):
    """``[experiment] random-ablation``."""

    sets: int = Field(3, ge=1)
    """Sets of random latents, each a condition of its own (published: 3)."""
    text: Literal["steered", "unsteered"] = "steered"
    """Matched on which responses to the study's prompts: those of the grid under their steering, where the ablation
    acts, or unsteered ones, on which detectors are rare, so that random latents as rare would change little anyway."""
    nearest: int = Field(12, ge=1)
    """Each is drawn from so many latents that match best."""
    responses: int = Field(400, ge=1)
    """Steered responses read at most."""


def work(lab: Lab, settings: RandomSettings) -> list[dict[str, Any]]:
    """The sets with how well they match (``esr.directions.matching.MatchedSet``); none without detectors."""
    from esr.directions.matching import random_sets
    from esr.directions.pairs import total_activity
    from esr.studies.detecting import steered_latents, steered_texts, study_texts

    detectors = lab.result("otd-discovery")["detectors"]
    if not detectors:
        return []
    texts = steered_texts(lab, settings.responses) if settings.text == "steered" else study_texts(lab)[1]
    activity = total_activity(lab.engine, texts)
    drawn = random_sets(
        detectors, activity.density, activity.mean_active, lab.random("random-ablation"),
        sets=settings.sets, nearest=settings.nearest, exclude=steered_latents(lab),
    )  # fmt: skip
    return [asdict(one) for one in drawn]


def conditions(lab: Lab, settings: RandomSettings) -> list[Condition]:
    """One condition per set."""
    return [
        Condition(
            f"random-ablation {k}",
            clamps=tuple((latent, 0.0) for latent in one["latents"]),
            clamp_reads=settings.clamp_reads,
        )
        for k, one in enumerate(lab.result("random-ablation"), start=1)
    ]


EXPERIMENT = Experiment(
    "random-ablation",
    "Does it fall without as many random latents that are as active?",
    conditions,
    arms=lambda settings: settings.sets,
    whole_grid=True,
    work=work,
    needs=("incidence", "otd-discovery"),
    latents=True,
    settings=RandomSettings,
)
