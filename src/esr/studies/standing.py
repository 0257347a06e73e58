"""How far a study is: read from its file, also while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esr.studies.planning import plan_run
from esr.studies.progress import duration
from esr.studies.store import Store
from esr.studies.study import Study

FEW = 4
"""Conditions that are listed one by one when all are done."""


@dataclass(frozen=True)
class Standing:
    """What there is of a study and what is still to come of its own experiments."""

    folder: str
    begun: bool
    """Whether anything is stored."""
    stages: tuple[Mapping[str, Any], ...]
    """Wall time and work: stage, seconds, tokens, responses."""
    conditions: Mapping[str, tuple[int, int]]
    """(trials judged, trials planned so far)."""
    waiting: int
    """Responses that were generated and are not judged."""
    to_come: int
    """Responses still to generate, at most; as many as are expected where the efficacy gate has no bound."""
    to_come_in_words: str
    """The same with what is expected: ``about 256, at most 1024``."""
    seconds_left: float | None
    """For these, at the study's speed so far; None before there is one."""

    def lines(self) -> list[str]:
        """In words."""
        if not self.begun or not (self.stages or self.conditions):
            return [f"Nothing is stored yet. Run it: esr run {self.folder}"]
        lines = [
            f"{s['stage']}: {s['responses']} responses, {s['tokens']} tokens, {s['seconds']:.0f} s"
            + (f", {s['tokens'] / s['seconds']:,.0f} tokens/s" if s["tokens"] and s["seconds"] else "")
            for s in self.stages
        ]
        lines += [
            f"{name}: {done} of {planned} trials judged"
            for name, (done, planned) in self.conditions.items()
            if done < planned or len(self.conditions) <= FEW
        ]
        if len(self.conditions) > FEW:
            done, planned = (sum(counts) for counts in zip(*self.conditions.values(), strict=True))
            lines.append(f"{len(self.conditions)} conditions: {done} of {planned} trials judged")
        if not self.conditions:
            lines.append("No trial is stored yet: directions and their thresholds come first.")
        if self.waiting:
            lines.append(f"{self.waiting} responses wait for the judge.")
        if self.to_come:
            about = "" if self.seconds_left is None else f", about {duration(self.seconds_left)} at the speed so far"
            lines.append(f"To come: {self.to_come_in_words} responses{about}. Go on: esr run {self.folder}")
        return lines


def standing(study: Study) -> Standing:
    """Read the study's file. Nothing stored is no error."""
    folder = study.folder
    plan = plan_run(folder, study.config, study.config.experiments)
    if not (folder / "study.sqlite").exists():
        return Standing(str(folder), False, (), {}, 0, plan.responses, plan.responses_in_words, None)
    with Store.reading(folder) as store:
        waiting = store.waiting(study.judge_key)
    stages = tuple({str(name): value for name, value in row.items()} for row in study.stages.to_dict("records"))
    to_come = plan.responses, plan.responses_in_words
    return Standing(str(folder), bool(stages), stages, study.progress(), waiting, *to_come, plan.seconds)
