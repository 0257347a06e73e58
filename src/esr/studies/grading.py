"""Have responses judged as they appear, and store the verdicts.

The judge runs in a thread of its own while the calling thread goes on producing responses, so judging goes on while
the engine generates. Only the calling thread touches the store.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from esr.errors import UserError
from esr.judging.client import Call
from esr.judging.degraded import DEGRADED_VERSION, is_degraded
from esr.judging.records import Exhibit, Judge, Judgement, Unscored
from esr.judging.screen import SCREEN_VERSION, find_restarts
from esr.steering.engine import Response
from esr.steering.stopping import stop
from esr.studies.judges import Coverage
from esr.studies.store import Store

LEFT_OUT = Unscored("not sampled")
"""Outside of the judge's coverage: stored as a mark only, a wider coverage puts a verdict in its place."""

AHEAD = 2000
"""Responses that may wait for their judge before the engine has to: they are held in memory."""


class Progress(Protocol):
    """Told how far a stage is; ``esr.studies.progress`` has implementations."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins with ``total`` responses to come (an estimate for adaptive stages)."""
        ...

    def found(self, responses: int) -> None:
        """So many were done before: they are in the store."""
        ...

    def produced(self, tokens: int) -> None:
        """A response was generated just now."""
        ...

    def queued(self) -> None:
        """A response waits for its judge."""
        ...

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        """Some responses are done now: produced, and judged where a judge sees them."""
        ...

    def end(self) -> None:
        """The stage is complete."""
        ...


@dataclass(frozen=True)
class Place:
    """What the grader must know of a response beside its text."""

    prompt: str
    """The bare prompt, as the judge sees it."""
    cell: tuple[str, int, int] | None
    """(direction, prompt_index, seed), for coverage; None: judged always."""
    judged_from: int = 0
    """First character of the response that the judge sees."""


@dataclass
class Budget:
    """What the judge's calls may cost from here on."""

    dollars: float
    price: tuple[float, float]
    """Dollars per million input and output tokens."""
    spent: float = 0.0
    """By the tokens the provider counted; calls it did not count are not in it."""

    def add(self, calls: Sequence[Call]) -> None:
        """These were made."""
        for call in calls:
            given, answered = call.input_tokens or 0, call.output_tokens or 0
            self.spent += (given * self.price[0] + answered * self.price[1]) / 1e6

    def check(self) -> None:
        """Raises UserError once more is spent than there was."""
        if self.spent > self.dollars:
            raise UserError(
                f"judging costs at most --max-cost {self.dollars:.2f} dollars", f"{self.spent:.2f} so far",
                "What is finished is stored: to go on, run it again with a limit for what is left",
            )  # fmt: skip


@dataclass
class Grader:
    """One judge at work on one study."""

    store: Store
    judge: Judge
    progress: Progress
    coverage: Coverage = field(default_factory=Coverage)
    budget: Budget | None = None
    """None: there is no limit. Where it is spent, what is in flight is waited for as after Ctrl-C."""

    def grade(self, responses: Iterator[Response], places: Mapping[str, Place]) -> dict[str, Judgement]:
        """The verdicts of all ``responses`` by their id; those in the store are not asked for again.

        ``places`` has every response that may come. What a narrower coverage left out is looked at again.
        """
        stored = self.store.grades(list(places), self.judge.key)
        grades = {id: judgement for id, judgement in stored.items() if judgement != LEFT_OUT}
        self.progress.found(len(grades))
        tokens: dict[str, int] = {}

        def keep(id: str, judgement: Judgement) -> None:
            self.store.add_grade(id, self.judge.key, judgement)
            grades[id] = judgement
            unscored = isinstance(judgement, Unscored) and judgement != LEFT_OUT
            self.progress.advance(1, tokens.pop(id), int(unscored))

        def exhibits() -> Iterator[Exhibit]:
            for response in responses:
                if response.id in grades:
                    continue
                place = places[response.id]
                self.progress.queued()
                tokens[response.id] = len(response.token_ids)
                seen = response.text[place.judged_from :]
                if place.cell is not None:  # only the grid's are shown beside the judge
                    found = bool(find_restarts(seen, place.prompt))
                    self.store.add_marks(response.id, (SCREEN_VERSION, found), (DEGRADED_VERSION, is_degraded(seen)))
                if place.cell is None or self.coverage.weight(place.cell, place.prompt, response):
                    yield Exhibit(response.id, place.prompt, seen)
                else:
                    keep(response.id, LEFT_OUT)

        try:
            for id, judgement in judged_meanwhile(self.judge, exhibits(), self.budget):
                keep(id, judgement)
                self._note_calls()
        finally:  # what was paid for is noted, whatever came of it
            self._note_calls()
        return grades

    def _note_calls(self) -> None:
        made: Callable[[], list[Call]] = getattr(self.judge, "calls", list)  # only a model's cost anything
        calls = made()
        self.store.add_calls(self.judge.key, calls)
        if self.budget is not None:
            self.budget.add(calls)


def judged_meanwhile(
    judge: Judge, exhibits: Iterator[Exhibit], budget: Budget | None = None
) -> Iterator[tuple[str, Judgement]]:
    """Feed exhibits to the judge's thread as they appear; yield its verdicts as they arrive.

    ``exhibits`` is consumed in the calling thread, at most ``AHEAD`` before the judge takes them. An error of the judge
    is raised here. When ``exhibits`` raises (Ctrl-C, a failing engine), or ``budget`` is spent, the judge begins
    nothing new, and what it had begun is yielded before the error; for how long that is waited for,
    ``esr.steering.stopping`` says.
    """
    inbox: queue.Queue[Exhibit | None] = queue.Queue()
    outbox: queue.Queue[tuple[str, Judgement] | BaseException | None] = queue.Queue()

    stopped = threading.Event()

    def drawn() -> Iterator[Exhibit]:
        while (exhibit := inbox.get()) is not None and not stopped.is_set():
            yield exhibit

    def work() -> None:
        try:
            for verdict in judge.judge(drawn()):
                outbox.put(verdict)
            outbox.put(None)
        except BaseException as error:  # handed to the calling thread, which raises it
            outbox.put(error)

    thread = threading.Thread(target=work, name="judge", daemon=True)
    thread.start()

    def end() -> None:
        stopped.set()
        inbox.put(None)
        thread.join(timeout=0 if stop.at_once else stop.seconds_left)

    try:
        for exhibit in exhibits:
            inbox.put(exhibit)
            while not outbox.empty() or inbox.qsize() > AHEAD:
                try:
                    verdict = _verdict(outbox.get(timeout=0.2))
                except queue.Empty:
                    stop.check()
                    continue
                if verdict is None:
                    raise RuntimeError(f"judge {judge.name} stopped before all responses were judged")
                yield verdict
                if budget is not None:
                    budget.check()
        inbox.put(None)
        while True:
            stop.check()
            try:
                verdict = _verdict(outbox.get(timeout=0.2))  # in slices, to hear that somebody asked to stop
            except queue.Empty:
                continue
            if verdict is None:
                break
            yield verdict
            if budget is not None:
                budget.check()
    except (Exception, KeyboardInterrupt):
        with suppress(KeyboardInterrupt):  # a second one: what is judged by now is still kept
            end()
        while not outbox.empty():
            if isinstance(item := outbox.get(), tuple):
                yield item
        raise
    finally:
        end()


def _verdict(item: tuple[str, Judgement] | BaseException | None) -> tuple[str, Judgement] | None:
    if isinstance(item, BaseException):
        raise item
    return item
