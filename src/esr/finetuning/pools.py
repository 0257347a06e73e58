"""The two pools of examples that every share is mixed from, and the ordinary answers that are held out."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from esr.errors import UserError
from esr.finetuning.examples import Example, read_examples, write_examples, write_whole
from esr.finetuning.settings import FOLDER, FineTuneSettings
from esr.studies.grading import Progress
from esr.subjects.spec import SubjectSpec

if TYPE_CHECKING:
    from esr.steering.settings import EngineSettings
    from esr.studies.study import Study
    from esr.subjects.loading import Subject


def pool_size(settings: FineTuneSettings) -> int:
    """How many self-correction examples are made: enough for any share, or, where each costs money, for these."""
    if settings.source == "judge":
        return round(settings.examples * max(settings.shares) / 100)
    return settings.examples


def prepare_pools(study: Study, settings: FineTuneSettings, progress: Progress) -> None:
    """Write the pools of examples, unless ``data.json`` says that they are complete."""
    from esr.finetuning import sources

    folder = study.folder / FOLDER
    if (folder / "data.json").exists():
        return
    trials, seed = study.trials, study.config.seed
    order = trials.drop_duplicates("prompt_index").sort_values("prompt_index")["prompt"].tolist()
    prompts, held_out = sources.split_prompts(order, settings.held_out, seed)
    subject = loaded_quietly(study.config.subject, study.config.engine)  # the engine may load the weights itself
    screen = _Screen(subject, settings.max_tokens)
    kept_held_out = screen.keep(sources.ordinary_answers(trials, held_out, settings.ordinary_at_least))
    if not kept_held_out:
        raise UserError(
            "the prompts held out have ordinary answers", f"none to {len(held_out)} prompts",
            "Lower ordinary_at_least or raise held_out",
        )  # fmt: skip
    ordinary, given = _ordinary(study, settings, trials, (prompts, held_out), subject, progress)
    kept_ordinary = screen.keep(ordinary)
    notes: dict[str, Any] = {}
    corrections = screen.keep(
        [e for e in given if e.prompt not in held_out]
        if settings.data is not None
        else _corrections(study, settings, trials, kept_ordinary, prompts, progress, notes)
    )
    if not corrections and max(settings.shares):
        raise UserError(
            "a fine-tuning needs at least one self-correction example", f"none from {settings.data or settings.source}",
            'Use the source "constructed", which makes them from any steered study',
        )  # fmt: skip
    write_examples(folder / "examples.jsonl", corrections)
    write_examples(folder / "ordinary.jsonl", kept_ordinary)
    write_examples(folder / "held-out.jsonl", kept_held_out)
    summary = {
        "self_correction": len(corrections), "ordinary": len(kept_ordinary), "held_out": len(kept_held_out),
        "sources": dict(Counter(e.source for e in (*corrections, *kept_ordinary))),
        "left_out": dict(screen.left_out), "held_out_prompts": held_out, **notes,
    }  # fmt: skip
    write_whole(folder / "data.json", json.dumps(summary, indent=1) + "\n")


def _ordinary(
    study: Study,
    settings: FineTuneSettings,
    trials: Any,
    split: tuple[list[str], list[str]],
    subject: Subject,
    progress: Progress,
) -> tuple[list[Example], list[Example]]:
    """(ordinary answers, self-correction examples of the user's file)."""
    from esr.finetuning import sources
    from esr.finetuning.answers import generate_answers

    prompts, held_out = split
    given: list[Example] = []
    if settings.data is not None:
        every = read_examples(study.folder / settings.data)
        given = [e for e in every if e.corrects_itself]
        ordinary = [e for e in every if not e.corrects_itself and e.prompt not in held_out]
        if ordinary:
            return sources.shuffled(ordinary, study.config.seed), given
    found = sources.ordinary_answers(trials, prompts, settings.ordinary_at_least)
    missing = settings.examples - len(found)
    if missing > 0:
        path = study.folder / FOLDER / "answers.jsonl"
        more = generate_answers(subject, study.config, prompts, missing, path, progress)
        seen = {(e.prompt, e.text) for e in found}
        found += list({(e.prompt, e.text): e for e in more if (e.prompt, e.text) not in seen}.values())
    return sources.shuffled(found, study.config.seed), given


def _corrections(
    study: Study,
    settings: FineTuneSettings,
    trials: Any,
    ordinary: list[Example],
    prompts: list[str],
    progress: Progress,
    notes: dict[str, Any],
) -> list[Example]:
    """Self-correction examples of the settings' source; ``notes`` gets what is worth keeping about their making."""
    from esr.finetuning import sources

    seed, folder = study.config.seed, study.folder
    if settings.source == "study":
        return sources.episodes(trials, prompts, seed)
    if settings.source == "constructed":
        return sources.constructed(
            trials, ordinary, prompts, sources.restart_list(settings.restarts, folder, study.config.subject),
            at_most=settings.off_topic_at_most, count=pool_size(settings), seed=seed,
        )  # fmt: skip
    from esr.finetuning.writing import subject_list, write_with_model

    subjects = subject_list(settings.subjects, folder)
    path = folder / FOLDER / "written.jsonl"
    written = write_with_model(study.config.judge, prompts, subjects, pool_size(settings), seed, path, progress)
    notes["written"] = {"by": study.config.judge.name, "failures": written.failures, **vars(written.usage)}
    return written.examples


class _Screen:
    """Lets through what the subject can be trained on, and counts the rest."""

    def __init__(self, subject: Subject, max_tokens: int) -> None:
        from esr.finetuning.masking import Encoder

        self._encoder = Encoder(subject)
        self._most = min(max_tokens, subject.context or max_tokens)
        self.left_out: Counter[str] = Counter()

    def keep(self, examples: list[Example]) -> list[Example]:
        return [example for example in examples if self._fits(example)]

    def _fits(self, example: Example) -> bool:
        try:
            length = len(self._encoder.encode(example).ids)
        except UserError:
            self.left_out[f"{example.source}: special or unknown tokens"] += 1
            return False
        if length > self._most:
            self.left_out[f"{example.source}: longer than {self._most} tokens"] += 1
            return False
        return True


def loaded_quietly(spec: SubjectSpec, engine: EngineSettings | None = None) -> Subject:
    """``load_for`` without the library's progress bar; default: for the hf engine, with all weights."""
    import transformers

    from esr.steering.make import load_for
    from esr.steering.settings import EngineSettings

    transformers.utils.logging.disable_progress_bar()
    return load_for(spec, engine or EngineSettings())
