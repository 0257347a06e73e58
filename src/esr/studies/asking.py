"""From a place in the grid to a task: prompt, template, chat ids, interventions, sampling."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from esr.steering.engine import Request, Sampling
from esr.steering.interventions import Add, Clamp, Direction, Intervention, Schedule
from esr.studies.conditions import Condition, Start
from esr.studies.config import StudyConfig
from esr.studies.grid import Cell
from esr.studies.measure import Task
from esr.studies.store import NOWHERE, Origin
from esr.subjects.chat import chat_ids
from esr.subjects.loading import Subject

NO_DIRECTION = "none"


@dataclass(frozen=True)
class Asker:
    """Builds tasks for one study."""

    config: StudyConfig
    subject: Subject
    prompts: tuple[str, ...]
    _asked: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    def task(
        self,
        purpose: str,
        condition: Condition,
        cell: Cell,
        direction: Direction | None,
        boost: float,
        *,
        share_of_length: float = 1.0,
        start: Start | None = None,
    ) -> Task:
        """One response to ask for. ``direction`` None or a boost of 0 means unsteered.

        ``share_of_length`` scales the number of tokens: calibration answers are half as long (published). ``start``:
        the text it continues, which is part of the response's length. Raises UserError when nothing is left of it.
        """
        start = start or Start(cell)
        prompt = self.prompts[cell.prompt_index]
        label = "" if direction is None else direction.label
        for token in self.subject.tokenizer.all_special_tokens:  # a label is somebody's text: no turn ends in it
            label = label.replace(token, " ")
        # not format, and in one pass: prompts and labels may hold braces, even {prompt}
        words = {"{label}": label, "{prompt}": prompt}
        asked = re.sub(r"\{label\}|\{prompt\}", lambda match: words[match.group()], condition.template)
        settings = self.config.sampling
        sampling = Sampling(
            settings.temperature,
            settings.top_p,
            settings.repetition_penalty,
            settings.penalty_over,
            max(1, round(settings.max_new_tokens * share_of_length)) - len(start.prefill_ids),
        )
        request = Request(
            id="",
            prompt_ids=self._chat_ids(asked),
            interventions=self.interventions(condition, direction, boost, start.schedule or condition.schedule),
            sampling=sampling,
            seed=cell.seed,
            prefill_ids=start.prefill_ids,
            clamp_reads=condition.clamp_reads,
        )
        return Task(
            purpose, condition.name, direction.id if direction else NO_DIRECTION, cell.prompt_index, prompt,
            cell.seed, float(boost), request, self._origin(condition, start),
        )  # fmt: skip

    def _chat_ids(self, asked: str) -> tuple[int, ...]:
        """Tokens of what is asked. The same few questions come again and again."""
        if asked not in self._asked:
            if len(self._asked) >= 10_000:
                self._asked.clear()
            self._asked[asked] = chat_ids(self.subject, self.config.subject, asked)
        return self._asked[asked]

    def interventions(
        self, condition: Condition, direction: Direction | None, boost: float, schedule: Schedule
    ) -> tuple[Intervention, ...]:
        """What a condition does to the residual stream; ``direction`` None or a boost of 0 adds nothing."""
        clamps = [Clamp(latent, value, self.subject.read_layer) for latent, value in condition.clamps]
        if direction is None or boost == 0:
            return tuple(clamps)
        return (*clamps, Add(direction, boost, self.subject.steer_layer, schedule))

    def _origin(self, condition: Condition, start: Start) -> Origin:
        if not start.prefill_ids:
            return NOWHERE
        text = self.subject.tokenizer.decode(
            list(start.prefill_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        characters = len(text.rstrip("\ufffd"))  # a character whose bytes the cut divides belongs to what follows
        return Origin(start.source, len(start.prefill_ids), characters, condition.judged == "continuation")
