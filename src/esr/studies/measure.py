"""Generate what is missing, judge what is missing, store both: the one place where a study does its work.

Generation runs in the calling thread and feeds finished responses to the judge, which runs in a thread of its own, so
judging goes on while the engine generates. Only the calling thread touches the store.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from esr.judging.records import Exhibit, Judge, Judgement
from esr.steering.engine import Engine, Request, Response
from esr.studies.grid import content_key
from esr.studies.store import Store, TrialRow


class Progress(Protocol):
    """Told how far a stage is; ``esr.studies.progress`` has implementations."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins with ``total`` responses to come (an estimate for adaptive stages)."""
        ...

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        """Some responses are done: generated and judged, or found in the store (tokens 0)."""
        ...

    def end(self) -> None:
        """The stage is complete."""
        ...


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


@dataclass(frozen=True)
class Measured:
    """A task's outcome."""

    task: Task
    response: Response
    judgement: Judgement

    @property
    def first_score(self) -> float | None:
        """Score of the first attempt, or None when unscored."""
        attempts = getattr(self.judgement, "attempts", None)
        return None if attempts is None else float(attempts[0].score)


@dataclass
class Measurer:
    """Does tasks. ``subject_key`` identifies weights and settings of the subject in every response's key."""

    store: Store
    engine: Engine
    judge: Judge
    subject_key: str
    progress: Progress

    def measure(self, stage: str, tasks: Sequence[Task]) -> list[Measured]:
        """Outcomes in the order of the tasks. What the store has is not done again."""
        began = time.perf_counter()
        keys = [content_key(self.subject_key, task.request.describe()) for task in tasks]
        self.store.add_trials([self._row(task, key) for task, key in zip(tasks, keys, strict=True)])
        by_key = dict(zip(keys, tasks, strict=True))
        responses = self.store.responses(list(by_key))
        grades = self.store.grades(list(by_key), self.judge.key)
        self.progress.advance(len(grades), 0, 0)
        missing = [replace(by_key[k].request, id=k) for k in by_key if k not in responses]
        ungraded = [responses[k] for k in by_key if k in responses and k not in grades]
        generated = tokens = 0

        def produce() -> Iterator[Response]:
            nonlocal generated, tokens
            yield from ungraded
            for response in self.engine.generate(missing):
                self.store.add_response(response.id, response)
                responses[response.id] = response
                generated += 1
                tokens += len(response.token_ids)
                yield response

        try:
            if missing or ungraded:
                for key, judgement in self._judged(produce(), by_key):
                    self.store.add_grade(key, self.judge.key, judgement)
                    grades[key] = judgement
                    unscored = not hasattr(judgement, "attempts")
                    self.progress.advance(1, len(responses[key].token_ids), int(unscored))
        finally:
            self.store.add_to_stage(stage, time.perf_counter() - began, tokens, generated)
        return [Measured(task, responses[key], grades[key]) for task, key in zip(tasks, keys, strict=True)]

    def _judged(self, responses: Iterator[Response], tasks: dict[str, Task]) -> Iterator[tuple[str, Judgement]]:
        """Feed responses to the judge's thread as they appear; yield its verdicts as they arrive."""
        inbox: queue.Queue[Exhibit | None] = queue.Queue()
        outbox: queue.Queue[tuple[str, Judgement] | BaseException | None] = queue.Queue()

        def work() -> None:
            try:
                for verdict in self.judge.judge(iter(inbox.get, None)):
                    outbox.put(verdict)
                outbox.put(None)
            except BaseException as error:  # handed to the calling thread, which raises it
                outbox.put(error)

        thread = threading.Thread(target=work, name="judge", daemon=True)
        thread.start()
        try:
            for response in responses:
                inbox.put(Exhibit(response.id, tasks[response.id].prompt, response.text))
                while not outbox.empty():
                    verdict = outbox.get()
                    if verdict is None:
                        raise RuntimeError(f"judge {self.judge.name} stopped before all responses were judged")
                    yield _verdict(verdict)
            inbox.put(None)
            while (verdict := outbox.get()) is not None:
                yield _verdict(verdict)
        finally:
            inbox.put(None)
            thread.join(timeout=60)

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
        return TrialRow(content_key(*place, response_key), *place, response_key)


def _verdict(item: tuple[str, Judgement] | BaseException) -> tuple[str, Judgement]:
    if isinstance(item, BaseException):
        raise item
    return item
