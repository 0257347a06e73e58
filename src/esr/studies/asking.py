"""From a place in the grid to a task: prompt, template, chat ids, interventions, sampling."""

from __future__ import annotations

import re
from dataclasses import dataclass

from esr.steering.engine import Request, Sampling
from esr.steering.interventions import Add, Clamp, Direction, Intervention
from esr.studies.conditions import Condition
from esr.studies.config import StudyConfig
from esr.studies.grid import Cell
from esr.studies.measure import Task
from esr.subjects.chat import chat_ids
from esr.subjects.loading import Subject

NO_DIRECTION = "none"


@dataclass(frozen=True)
class Asker:
    """Builds tasks for one study."""

    config: StudyConfig
    subject: Subject
    prompts: tuple[str, ...]

    def task(
        self,
        purpose: str,
        condition: Condition,
        cell: Cell,
        direction: Direction | None,
        boost: float,
        *,
        share_of_length: float = 1.0,
    ) -> Task:
        """One response to ask for. ``direction`` None or a boost of 0 means unsteered.

        ``share_of_length`` scales the number of new tokens: calibration answers are half as long (published).
        """
        prompt = self.prompts[cell.prompt_index]
        label = "" if direction is None else direction.label
        # not format, and in one pass: prompts and labels may hold braces, even {prompt}
        words = {"{label}": label, "{prompt}": prompt}
        asked = re.sub(r"\{label\}|\{prompt\}", lambda match: words[match.group()], condition.template)
        settings = self.config.sampling
        sampling = Sampling(
            settings.temperature,
            settings.top_p,
            settings.repetition_penalty,
            settings.penalty_over,
            max(1, round(settings.max_new_tokens * share_of_length)),
        )
        interventions: list[Intervention] = [
            Clamp(latent, value, self.subject.read_layer) for latent, value in condition.clamps
        ]
        if direction is not None and boost != 0:
            interventions.append(Add(direction, boost, self.subject.steer_layer, condition.schedule))
        request = Request(
            id="",
            prompt_ids=chat_ids(self.subject, self.config.subject, asked),
            interventions=tuple(interventions),
            sampling=sampling,
            seed=cell.seed,
            clamp_reads=condition.clamp_reads,
        )
        return Task(
            purpose, condition.name, direction.id if direction else NO_DIRECTION, cell.prompt_index, prompt,
            cell.seed, float(boost), request,
        )  # fmt: skip
