"""Can it be trained in? One LoRA adapter per share of self-correction examples, and a study of each with its thresholds
found anew (arXiv 2602.06941). ``esr fine-tune`` does the same and can add shares later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esr.finetuning.settings import KEY, FineTuneSettings
from esr.studies.experiments.registry import Experiment

if TYPE_CHECKING:
    from pathlib import Path

    from esr.studies.config import StudyConfig
    from esr.studies.lab import Lab


def check(folder: Path, config: StudyConfig, settings: FineTuneSettings) -> None:
    """The extra is there, and what the examples are made from."""
    from esr.finetuning.shares import check_can_train

    check_can_train(folder, config, settings)


def work(lab: Lab, settings: FineTuneSettings) -> dict[str, Any]:
    """Train and measure; the studies of the adapters lie in the study's folder."""
    lab.engine.close()  # training needs its memory; it starts again when the study asks it for more
    from esr.finetuning.shares import run_shares
    from esr.studies.study import Study

    run_shares(Study.open(lab.folder), settings, lab.progress)
    return {"shares": list(settings.shares)}


EXPERIMENT = Experiment(
    KEY,
    "Can resistance be trained in?",
    work=work,
    needs=("no-steering", "incidence"),
    settings=FineTuneSettings,
    figure="dose",
    in_all=False,
    check=check,
)
