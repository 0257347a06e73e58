"""Generate what is missing, have it judged, store both: the one place where a study does its work."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from esr.judging.records import Judgement, Scored
from esr.steering.engine import Engine, Request, Response
from esr.steering.stopping import stop
from esr.studies.grading import Grader, Place
from esr.studies.grid import content_key
from esr.studies.store import NOWHERE, Origin, Store, TrialRow


@dataclass(frozen=True)
class Task:
    """One trial to do: where it belongs and what to ask."""

    purpose: str
    condition: str
    direction: str
    """Direction id, or ``none``."""
    prompt_index: int
    prompt: str
    """The bare prompt, as the judge sees it."""
    seed: int
    boost: float
    request: Request
    """Its id is ignored; the store's key replaces it."""
    origin: Origin = NOWHERE

    @property
    def cell(self) -> tuple[str, int, int]:
        """The place in the grid that conditions share: (direction, prompt_index, seed)."""
        return (self.direction, self.prompt_index, self.seed)


@dataclass(frozen=True)
class Measured:
    """A task's outcome."""

    task: Task
    response: Response
    judgement: Judgement
    key: str
    """The trial's."""

    @property
    def first_score(self) -> float | None:
        """Score of the first attempt, or None when unscored."""
        return self.judgement.attempts[0].score if isinstance(self.judgement, Scored) else None


class Account:
    """Adds wall time and work to a stage's account in the store, every few seconds, so that others can watch."""

    def __init__(self, store: Store, stage: str, every: float = 5.0) -> None:
        self._store, self._stage, self._every = store, stage, every
        self._noted, self._tokens, self._responses = time.perf_counter(), 0, 0

    def __enter__(self) -> Account:
        return self

    def __exit__(self, *_: object) -> None:
        self._note()

    def add(self, tokens: int) -> None:
        """One response of so many generated tokens."""
        self._tokens += tokens
        self._responses += 1
        if time.perf_counter() - self._noted >= self._every:
            self._note()

    def _note(self) -> None:
        now = time.perf_counter()
        self._store.add_to_stage(self._stage, now - self._noted, self._tokens, self._responses)
        self._noted, self._tokens, self._responses = now, 0, 0


@dataclass
class Measurer:
    """Does tasks. ``subject_key`` identifies weights and settings of the subject in every response's key."""

    engine: Engine
    grader: Grader
    subject_key: str

    def measure(self, stage: str, tasks: Sequence[Task]) -> list[Measured]:
        """Outcomes in the order of the tasks. What the store has is not done again."""
        account = Account(self.grader.store, stage)
        store = self.grader.store
        keys = [self._key(task) for task in tasks]
        rows = [self._row(task, key) for task, key in zip(tasks, keys, strict=True)]
        store.add_trials(rows)
        by_key = dict(zip(keys, tasks, strict=True))
        responses = store.responses(list(by_key))
        places = {
            k: Place(t.prompt, t.cell if t.purpose == "trial" else None, t.origin.judged_from)
            for k, t in by_key.items()
        }

        def produce() -> Iterator[Response]:
            yield from list(responses.values())
            missing = [replace(by_key[k].request, id=k) for k in by_key if k not in responses]
            for generated in self.engine.generate(missing):
                response = store.add_response(generated.id, generated)
                responses[response.id] = response
                new = len(response.token_ids) - by_key[response.id].origin.tokens
                account.add(new)
                self.grader.progress.produced(new)
                yield response
            stop.check()

        with account, stop.finishing():
            grades = self.grader.grade(produce(), places)
        return [
            Measured(task, responses[row.response], grades[row.response], row.key)
            for task, row in zip(tasks, rows, strict=True)
        ]

    def stored(self, tasks: Sequence[Task]) -> list[Measured]:
        """Outcomes of tasks that were all measured before, in their order."""
        keys = [self._key(task) for task in tasks]
        distinct = list(dict.fromkeys(keys))
        responses, grades = (
            self.grader.store.responses(distinct),
            self.grader.store.grades(distinct, self.grader.judge.key),
        )
        return [
            Measured(task, responses[key], grades[key], self._row(task, key).key)
            for task, key in zip(tasks, keys, strict=True)
        ]

    def generate(self, stage: str, requests: Sequence[Request]) -> list[Response]:
        """Responses that no judge sees, in the order of the requests. What the store has is not done again."""
        store = self.grader.store
        keys = [content_key(self.subject_key, request.describe()) for request in requests]
        responses = store.responses(sorted(set(keys)))
        missing = {k: replace(r, id=k) for k, r in zip(keys, requests, strict=True) if k not in responses}
        with Account(store, stage) as account, stop.finishing():
            for generated in self.engine.generate(list(missing.values())):
                response = store.add_response(generated.id, generated)
                responses[response.id] = response
                account.add(len(response.token_ids))
                self.grader.progress.produced(len(response.token_ids))
                self.grader.progress.advance(1, len(response.token_ids), 0)
            stop.check()
        return [responses[key] for key in keys]

    def trial_key(self, task: Task) -> str:
        """The key under which a task's trial is stored."""
        return self._row(task, self._key(task)).key

    def _key(self, task: Task) -> str:
        described = (self.subject_key, task.request.describe())
        # judged without its beginning, a response is another exhibit
        return content_key(*described, *(["continuation"] if task.origin.left_out else []))

    @staticmethod
    def _row(task: Task, response_key: str) -> TrialRow:
        place = (
            task.purpose,
            task.condition,
            task.direction,
            task.prompt_index,
            task.prompt,
            task.seed,
            task.boost,
        )
        return TrialRow(content_key(*place, response_key), *place, response_key, task.origin)
