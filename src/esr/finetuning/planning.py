"""What a fine-tuning will take before it is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from esr.finetuning.pools import pool_size
from esr.finetuning.settings import FOLDER, FineTuneSettings
from esr.finetuning.substudy import EXPERIMENTS, adapter_study, share_folder
from esr.finetuning.writing import TYPICAL_TOKENS
from esr.studies.config import StudyConfig
from esr.studies.planning import Plan, plan_run, price
from esr.studies.study import Study


def plan_fine_tuning(folder: Path, config: StudyConfig, settings: FineTuneSettings) -> Plan:
    """What is missing of the parent and of all shares' studies, and, where the judge writes the examples, of those;
    upper estimates. Training is not part of it. Raises UserError as ``esr.studies.planning.plan_run`` does."""
    plans = [plan_run(folder, config, EXPERIMENTS)]
    names = [""]
    calibrated = (folder / "study.sqlite").exists() and not Study.open(folder).calibration.empty
    for share in settings.shares:
        own = share_folder(folder, share)
        begun = calibrated and (own / "study.toml").exists()
        plans.append(
            plan_run(
                own, adapter_study(Study.open(folder), share) if begun else _in_prospect(folder, config), EXPERIMENTS
            )
        )
        names.append(f"share {share} %: ")
    written = 0
    if settings.source == "judge" and settings.data is None and not (folder / FOLDER / "examples.jsonl").exists():
        written = pool_size(settings)
    given = sum(plan.judge_input_tokens for plan in plans) + written * TYPICAL_TOKENS[0]
    answered = sum(plan.judge_output_tokens for plan in plans) + written * TYPICAL_TOKENS[1]
    rates = price(folder, config.judge.name)
    return Plan(
        stages=tuple(
            replace(stage, name=name + stage.name)
            for name, plan in zip(names, plans, strict=True)
            for stage in plan.stages
        ),
        stored=sum(plan.stored for plan in plans),
        judge=config.judge.name,
        judge_calls=sum(plan.judge_calls for plan in plans) + written,
        judge_input_tokens=given,
        judge_output_tokens=answered,
        dollars=None if rates is None else (given * rates[0] + answered * rates[1]) / 1e6,
        seconds=None,
    )


def _in_prospect(folder: Path, config: StudyConfig) -> StudyConfig:
    """The settings a share's study will have, as far as they matter to its size."""

    def absolute(name: str | None) -> str | None:
        return str((folder / name).resolve()) if name is not None and (folder / name).is_file() else name

    prompts = config.prompts.model_copy(update={"file": absolute(config.prompts.file)})
    judge = config.judge.model_copy(update={"rubric": absolute(config.judge.rubric)})
    directions = config.directions.model_copy(update={"efficacy_boosts": ()})
    return config.model_copy(update={"prompts": prompts, "judge": judge, "directions": directions})
