"""Can self-correction be trained in? One adapter per share of self-correction examples, and a study of each.

    STUDY/fine-tuning/
      settings.json      the settings that hold for all shares; they do not change any more
      examples.jsonl     self-correction examples (written.jsonl: what a model wrote of them)
      ordinary.jsonl     ordinary answers (answers.jsonl: those generated for it)
      held-out.jsonl     ordinary answers to held-out prompts, for perplexity (base-quality.json: without an adapter)
      data.json          how many of each, what was left out, which prompts are held out
      share-30/          a study of its own, and adapter/ (training.json: the loss), mix.json, quality.json

Whatever is there is not done again, so a run that was stopped at any point goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from esr.errors import UserError, missing_extra
from esr.finetuning.examples import read_examples, write_whole
from esr.finetuning.mix import mix
from esr.finetuning.pools import loaded_quietly, prepare_pools
from esr.finetuning.settings import FOLDER, FineTuneSettings, held_settings, read_settings
from esr.finetuning.substudy import EXPERIMENTS, adapter_study, share_folder
from esr.studies.config import StudyConfig
from esr.studies.grading import Progress

if TYPE_CHECKING:
    from esr.studies.study import Study


def run_fine_tuning(
    folder: Path, config: StudyConfig, progress: Progress, settings: FineTuneSettings | None = None
) -> None:
    """Do what is missing: the parent's no-steering and incidence, and all of ``run_shares``.

    ``settings``: default those of the study. Raises UserError for everything the user can put right; what can be known
    beforehand is known before anything is generated.
    """
    from esr.studies.runner import run_study
    from esr.studies.study import Study

    settings = settings or read_settings(folder, config)
    check_can_train(folder, config, settings)
    run_study(folder, config, EXPERIMENTS, progress)
    run_shares(Study.open(folder), settings, progress)


def run_shares(study: Study, settings: FineTuneSettings, progress: Progress) -> None:
    """Do what is missing of a study that has its no-steering and incidence: the examples, and for each share an
    adapter, its study and the perplexity of held-out answers. Read the result with
    ``esr.finetuning.dose.dose_response``.

    Raises UserError as ``run_fine_tuning`` does.
    """
    from esr.studies.runner import run_study

    check_can_train(study.folder, study.config, settings)
    with _alone(study.folder / FOLDER):
        _hold_settings(study.folder, settings)
        prepare_pools(study, settings, progress)
        for share in settings.shares:
            _train(study, settings, share, progress)
            own = adapter_study(study, share)
            try:
                run_study(share_folder(study.folder, share), own, EXPERIMENTS, progress)
            except UserError as error:
                raise UserError(
                    error.rule, f"{error.got}, with the adapter of share {share} %", error.remedy
                ) from error
            _measure_quality(study, own, share)


def check_can_train(folder: Path, config: StudyConfig, settings: FineTuneSettings) -> None:
    """Raises UserError for what stands in the way and can be known before anything is generated or trained."""
    from importlib.util import find_spec

    from esr.finetuning.sources import restart_list
    from esr.finetuning.writing import subject_list

    if find_spec("peft") is None:
        raise missing_extra("adapters", "train", "peft")
    if config.subject.adapter is not None:
        raise UserError(
            "a subject that is fine-tuned has no adapter yet", config.subject.adapter,
            "Merge it into the weights, save them, and make a study of that model",
        )  # fmt: skip
    if settings.data is not None:
        read_examples(folder / settings.data)
    elif settings.source == "constructed":
        restart_list(settings.restarts, folder, config.subject)
    elif settings.source == "judge":
        subject_list(settings.subjects, folder)
        if config.judge.name == "rule":
            raise UserError(
                "examples are written by a language model, the study's judge", "the rule judge",
                'Set [judge] name, or use another source ("constructed" needs no model)',
            )  # fmt: skip
    _check_settings(folder, settings)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process fine-tunes a study at a time."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            "one process fine-tunes a study at a time", f"another one holds {folder}", "Wait for it, or stop it"
        ) from None
    except OSError as error:
        raise UserError("the study's folder is writable", f"{error.strerror}: {folder}") from None
    try:
        yield
    finally:
        lock.release()


def _check_settings(folder: Path, settings: FineTuneSettings) -> None:
    """Once the examples are there, the settings do not change."""
    before, now = held_settings(folder), settings.locked(folder)
    changed = [f"{k}: {before[k]} -> {now[k]}" for k in before if before[k] != now[k]]
    if changed and (folder / FOLDER / "data.json").exists():
        raise UserError(
            "the settings of a fine-tuning that has its examples do not change", "; ".join(changed),
            f"Put them back, or remove {folder / FOLDER} to begin anew",
        )  # fmt: skip


def _hold_settings(folder: Path, settings: FineTuneSettings) -> None:
    _check_settings(folder, settings)
    write_whole(folder / FOLDER / "settings.json", json.dumps(settings.locked(folder), indent=1) + "\n")


def _train(study: Study, settings: FineTuneSettings, share: int, progress: Progress) -> None:
    from esr.finetuning.masking import Encoder
    from esr.finetuning.training import finished_adapter, train_adapter

    folder = share_folder(study.folder, share)
    if finished_adapter(folder) is not None:
        return
    data = study.folder / FOLDER
    pools = [read_examples(data / f"{name}.jsonl") for name in ("examples", "ordinary")]
    mixed = mix(pools[0], pools[1], share, settings.examples, study.config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "mix.json", json.dumps({"share": share} | mixed.counts, indent=1) + "\n")
    subject = loaded_quietly(study.config.subject)
    encoder = Encoder(subject)
    encoded = [encoder.encode(example) for example in mixed.examples]
    train_adapter(subject, encoded, settings.training, study.config.seed, folder, progress, f"training {share} %")


def _measure_quality(study: Study, own: StudyConfig, share: int) -> None:
    """Losses on held-out ordinary answers, without and with the adapter."""
    from esr.finetuning.quality import answer_losses

    data = study.folder / FOLDER
    for path, spec in (
        (data / "base-quality.json", study.config.subject),
        (share_folder(study.folder, share) / "quality.json", own.subject),
    ):
        if not path.exists():
            losses = answer_losses(loaded_quietly(spec), read_examples(data / "held-out.jsonl"))
            write_whole(path, json.dumps(losses.to_json()) + "\n")
