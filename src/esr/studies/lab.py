"""What an experiment works with: the grid, the thresholds, the outcomes so far, and ways to generate and to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from esr.errors import UserError
from esr.steering.engine import Engine, Request, Response
from esr.steering.interventions import Direction, Intervention
from esr.studies.asking import Asker
from esr.studies.conditions import Condition, Start
from esr.studies.config import StudyConfig
from esr.studies.grading import Progress
from esr.studies.grid import Cell, content_key, generator
from esr.studies.measure import Measured, Measurer, Task
from esr.studies.store import Store
from esr.subjects.loading import Subject

_AT_ONCE = 100_000  # most trials held in memory: about 1 kB each before they are generated


@dataclass
class Lab:
    """Handed to every experiment's ``conditions`` and ``work``. Nothing here depends on the order of finishing."""

    asker: Asker
    measurer: Measurer
    folder: Path
    """The study's folder: what paths in settings are relative to."""
    directions: Sequence[Direction]
    """The calibrated ones; ``Cell.direction`` is a position in it."""
    thresholds: Sequence[float]
    """One for each of ``directions``."""
    cells: Sequence[Cell]
    """The grid."""
    progress: Progress
    _conditions: dict[str, Condition] = field(default_factory=dict)
    _outcomes: dict[str, list[Measured]] = field(default_factory=dict)

    @property
    def config(self) -> StudyConfig:
        """The study's settings."""
        return self.asker.config

    @property
    def subject(self) -> Subject:
        """Model, tokenizer, SAE and labels."""
        return self.asker.subject

    @property
    def engine(self) -> Engine:
        """Generates and reads."""
        return self.measurer.engine

    @property
    def store(self) -> Store:
        """The study file."""
        return self.measurer.grader.store

    @property
    def prompts(self) -> Sequence[str]:
        """The study's questions; ``Cell.prompt_index`` is a position in it."""
        return self.asker.prompts

    @property
    def max_tokens(self) -> int:
        """Tokens of a response at most, a prefill included."""
        return self.config.sampling.max_new_tokens

    # ---- what was measured

    def outcomes(self, condition: str) -> list[Measured]:
        """The trials of a condition that a needed experiment measured, in its own order: for a condition over the whole
        grid, that of ``cells``. A trial's key is ``Measured.key``."""
        if condition not in self._outcomes:
            self._outcomes[condition] = self.measurer.stored(self.tasks(self._conditions[condition]))
        return self._outcomes[condition]

    def result(self, key: str) -> Any:
        """What the ``work`` of a needed experiment gave."""
        return self.store.record("result", key)

    # ---- making conditions

    def boost(self, condition: Condition, direction: int) -> float:
        """The boost of a direction (a position in ``directions``) under a condition."""
        if condition.boost_level is not None:
            return float(np.mean(self.thresholds) + condition.boost_level * np.std(self.thresholds))
        return condition.boost_factor * self.thresholds[direction]

    def interventions(self, condition: Condition, direction: int) -> tuple[Intervention, ...]:
        """What a condition does to the residual stream under a direction."""
        boost = self.boost(condition, direction)
        return self.asker.interventions(condition, self.directions[direction], boost, condition.schedule)

    def tasks(self, condition: Condition) -> list[Task]:
        """The trials of a condition."""
        return [self._task(condition, start) for start in self._starts(condition)]

    def _starts(self, condition: Condition) -> Iterator[Start]:
        return map(Start, self.cells) if condition.starts is None else iter(condition.starts)

    def _task(self, condition: Condition, start: Start) -> Task:
        boost, direction = self.boost(condition, start.cell.direction), self.directions[start.cell.direction]
        return self.asker.task("trial", condition, start.cell, direction, boost, start=start)

    def random(self, *names: Any) -> np.random.Generator:
        """Randomness for one named purpose, from the study's master seed."""
        return generator(self.config.seed, *names)

    # ---- text and tokens

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens as the engine writes them into a response's text."""
        tokenizer = self.subject.tokenizer
        return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def token_at(self, response: Response, character: int) -> int:
        """How many of a response's tokens lie wholly before a character of its text."""
        low, high = 0, len(response.token_ids)
        while low < high:  # the length of the decoded text grows with the number of tokens
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high) if len(self.decode(response.token_ids[:middle])) <= character else (low, middle - 1)
            )
        return low

    def token_ends(self, response: Response) -> list[int]:
        """For each of a response's tokens the character of its text that it ends before. A token that is only part of
        a character ends where the token before it does, or where the character does."""
        ends = [len(self.decode(response.token_ids[: i + 1])) for i in range(len(response.token_ids))]
        last = len(response.text)
        for i in reversed(range(len(ends))):  # half a character may decode to more than the whole one
            ends[i] = last = min(ends[i], last)
        return ends

    # ---- doing

    def generate(self, stage: str, requests: Sequence[Request]) -> list[Response]:
        """Responses without a judge, stored under their content: in the order of the requests."""
        return self.measurer.generate(stage, requests)

    def hold(self, name: str, content: Any) -> None:
        """Note what a file that settings only name holds. Raises UserError when it changed since the experiment ran."""
        found = content_key(content)
        stored = self.store.meta(f"content {name}")
        if stored not in (None, found):
            raise UserError(
                f"{name} does not change once its experiment has run", f"{stored} before, {found} now",
                "Put it back, or start a new study in another folder",
            )  # fmt: skip
        self.store.set_meta(f"content {name}", found)

    def measure(self, conditions: Sequence[Condition]) -> None:
        """Have the trials of all conditions done together: one batch may mix them. Memory does not grow with them."""
        self._conditions |= {condition.name: condition for condition in conditions}
        starts = [len(self.cells) if c.starts is None else len(c.starts) for c in conditions]
        self.progress.start("trials", sum(starts))
        missing = (task for condition in conditions for task in self._missing(condition))
        while tasks := list(islice(missing, _AT_ONCE)):
            self.measurer.measure("trials", tasks)
        self.progress.end()

    def _missing(self, condition: Condition) -> Iterator[Task]:
        done = self._done(condition)
        self.progress.found(len(done))
        for start in self._starts(condition):
            if self._place(start.cell) not in done:
                yield self._task(condition, start)

    def _place(self, cell: Cell) -> tuple[str, int, int]:
        return self.directions[cell.direction].id, cell.prompt_index, cell.seed

    def _done(self, condition: Condition) -> set[tuple[str, int, int]]:
        """The places of a condition over the grid that need no more work, so that a study of a million trials need not
        build them all again to go on. Raises UserError when its stored trials are not those it asks for now."""
        name, definition = f"condition {condition.name}", content_key(asdict(condition))
        if self.store.meta(name) != definition:  # new, or changed, be it in nothing that a trial depends on
            if old := self.store.trial_keys(condition.name):
                old -= {self.measurer.trial_key(self._task(condition, start)) for start in self._starts(condition)}
            if old:
                raise UserError(
                    "a condition is what it was when it first ran",
                    f"{condition.name}, with {len(old)} stored trials that it does not ask for now",
                    "Undo the change to its experiment, give the condition another name, or start a new study",
                )
            self.store.set_meta(name, definition)
        if condition.starts is not None:
            return set()
        return self.store.measured_cells(condition.name, self.measurer.grader.judge.key)
