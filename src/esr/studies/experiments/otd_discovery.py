"""Which latents notice? Off-topic detectors from unsteered responses to prompts the study does not ask: matched pairs
of prompt and response against a derangement (arXiv 2602.06941), and how those chosen do on the study's own prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from esr.studies.config import StudyConfig
    from esr.studies.lab import Lab


class DiscoverySettings(Settings):
    """``[experiment] otd-discovery``."""

    prompts: str | None = None
    """A prompt file (relative to the study) or a bundled set; default: the organism's, or all bundled how-to's."""
    disjoint: bool = True
    """Leave out the prompts the study asks."""
    responses_per_prompt: int = Field(4, ge=1)
    """Unsteered responses to each of them."""
    pool: Literal["max", "mean"] = "max"
    """How a latent's activations over the tokens of a pair become one number."""
    over: Literal["response", "all"] = "response"
    """Over which tokens."""
    by: Literal["auc", "strict", "d"] = "auc"
    """Best first by separability, by the strict rule or by Cohen's d (``esr.directions.detectors``)."""
    top: int = Field(26, ge=1)
    """Detectors at most (published: 26); fewer when fewer qualify. The study's own directions never do."""
    auc_minimum: float = Field(0.6, ge=0, le=1)
    """Least separability of a detector, whatever ranks it."""
    matched_share: float = Field(0.5, ge=0, le=1)
    """Most that the mean on matched pairs may be of the mean on mismatched ones; 1 lets always-on latents in."""
    strict_matched: float = Field(0.0, ge=0, le=1)
    """The strict rule: share of the matched pairs on which a latent may be active (published: never)."""
    strict_mismatched: float = Field(0.8, ge=0, le=1)
    """The strict rule: share of the mismatched pairs on which it must be."""


def check(folder: Path, config: StudyConfig, settings: DiscoverySettings) -> None:
    """There are prompts enough to look for detectors on."""
    _prompts(folder, config, settings)


def _prompts(folder: Path, config: StudyConfig, settings: DiscoverySettings) -> Sequence[str]:
    from esr.studies.discovery_prompts import discovery_prompts
    from esr.studies.prompts import study_prompts

    model = config.subject.model
    asked = study_prompts(config.prompts.file, folder, model)
    return discovery_prompts(folder, model, asked, settings.prompts, settings.disjoint)


def work(lab: Lab, settings: DiscoverySettings) -> dict[str, Any]:
    """``detectors``, best first; ``table``: a row for each, and for those that only ``auc_minimum`` or
    ``matched_share`` kept out; ``held_out``: the auc of the detectors together on the study's own prompts, None when
    there are no detectors or too few prompts."""
    from esr.directions.detectors import rank, separability
    from esr.studies import detecting

    model = lab.config.subject.model
    prompts = detecting.discovery_prompts(lab.folder, model, lab.prompts, settings.prompts, settings.disjoint)
    pairs = detecting.discovery_pairs(lab, prompts, settings.responses_per_prompt, settings.pool, settings.over)
    own = detecting.study_pairs(lab, settings.pool, settings.over)
    table = separability(pairs.matched, pairs.mismatched)
    limits = settings.model_dump(include={"by", "top", "strict_matched", "strict_mismatched"})
    limits["exclude"] = detecting.steered_latents(lab)
    chosen = rank(table, auc_minimum=settings.auc_minimum, matched_share=settings.matched_share, **limits)
    detectors = [int(latent) for latent in chosen["latent"]]
    others = [int(latent) for latent in rank(table, **limits)["latent"] if latent not in detectors]
    return {
        "detectors": detectors,
        "table": detecting.rows(lab, table, pairs, own, detectors, others),
        "held_out": detecting.held_out(lab, own, chosen) if own and detectors else None,
        "alive": int((table["mean_matched"] + table["mean_mismatched"] > 0).sum()),
        "prompts": len(prompts),
        "pairs": len(pairs.prompts),
        "held_out_pairs": len(own.prompts) if own else 0,
    }


EXPERIMENT = Experiment(
    "otd-discovery",
    "Which latents tell a response to the question from one to another?",
    work=work,
    latents=True,
    settings=DiscoverySettings,
    check=check,
    reads=lambda folder, config, settings: len(_prompts(folder, config, settings)) * settings.responses_per_prompt,
    figure="detectors",
)
