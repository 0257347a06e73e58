"""Handing work out to replicas in batches and taking it back: whatever a lost one had not answered is done again
by another, and every piece of work gives one result."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from esr.errors import SteeringError
from esr.steering.replicas.cluster import Cluster, LostError
from esr.steering.replicas.replica import Item

log = logging.getLogger(__name__)

_AHEAD = 2  # batches a replica has at a time: one at work, one that waits, so that it never waits for us
_TRIES = 3  # replicas that may be lost with the same piece of work in hand
_REMEDY = "Often it is memory that runs out: use fewer replicas or a smaller batch_size."
_PATIENCE = 900.0  # seconds without any replica that is running


@dataclass
class _Batch:
    items: list[Item]
    left: set[int]
    """Places without a result."""
    owner: _Worker


@dataclass(eq=False)
class _Worker:
    actor: Any
    starting: Any = None
    """What its start is waited for by; None once it runs."""
    about: dict[str, str] = field(default_factory=dict)
    streams: dict[Any, _Batch] = field(default_factory=dict)


class Dealer:
    """The replicas of one study, and the work in their hands."""

    def __init__(self, cluster: Cluster, replicas: int) -> None:
        self._cluster = cluster
        self._workers = [self._hire() for _ in range(replicas)]
        self.lost = 0
        """Replicas that were lost so far."""

    def _hire(self) -> _Worker:
        actor = self._cluster.make()
        return _Worker(actor, starting=self._cluster.start(actor))

    def started(self) -> list[dict[str, str]]:
        """What every replica that runs says about itself; waits for one."""
        while not any(w.starting is None for w in self._workers):
            self._note_started(self._wait([w.starting for w in self._workers]))
        return [w.about for w in self._workers if w.starting is None]

    def deal(
        self,
        method: str,
        work: Iterator[list[Item]],
        *,
        whole: bool = False,
        may: Callable[[], bool] = lambda: True,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[Item]:
        """Have the batches of ``work`` done and yield (place, result) in any order, one for every place.

        ``whole``: a batch of which a part was lost is done again as a whole, for its results come in order; else only
        what is missing of it. ``may``: whether a new batch may be handed out now; when nothing is out and it may not,
        this ends. ``stopping``: whether only what is in flight is still wanted. Raises what a replica raised, and
        SteeringError when replicas are lost again and again with the same work.
        """
        again: deque[list[Item]] = deque()
        done: set[int] = set()
        tries: Counter[int] = Counter()
        mine: dict[Any, _Batch] = {}
        ended = False
        stopped: list[_Worker] = []
        try:
            while True:
                if stopping():
                    ended = True
                    again.clear()
                    if not stopped:
                        stopped = self._stop(mine.values())
                while (worker := self._free(mine.values())) is not None and (again or (not ended and may())):
                    items = again.popleft() if again else next(work, None)
                    if items is None:
                        ended = True
                    else:
                        self._hand_out(worker, method, items, mine, done)
                if not mine and not again and (ended or not may()):
                    return
                ready = self._wait([*mine, *(w.starting for w in self._workers if w.starting is not None)])
                for stream in self._note_started(ready):
                    try:
                        item = self._cluster.next(stream)
                    except LostError as error:
                        again += self._take_back(mine[stream].owner, mine, whole, tries, str(error))
                        break  # its other streams may be among those that are ready
                    batch = mine[stream]
                    if item is None:
                        if batch.left and batch.owner not in stopped:
                            raise SteeringError(f"A replica left {len(batch.left)} pieces of work undone.")
                        del mine[stream], batch.owner.streams[stream]
                        continue
                    batch.left.discard(item[0])
                    if item[0] not in done:
                        done.add(item[0])
                        yield item
        finally:
            for worker in stopped:
                self._cluster.resume(worker.actor)
            for stream, batch in mine.items():  # given up: the replica goes on with it, and nobody looks
                batch.owner.streams.pop(stream, None)

    def _free(self, batches: Collection[_Batch]) -> _Worker | None:
        """A running replica that has little to do of these, that with the least. Another call's batches do not count:
        one that is suspended may never take back what its replicas have done. While one starts, what could wait in the
        others' hands is left for it."""
        busy = Counter(id(batch.owner) for batch in batches)
        running = [w for w in self._workers if w.starting is None]
        ahead = _AHEAD if len(running) == len(self._workers) else 1
        free = [w for w in running if busy[id(w)] < ahead]
        return min(free, key=lambda w: busy[id(w)], default=None)

    def _stop(self, batches: Collection[_Batch]) -> list[_Worker]:
        """Have those that are at work on these finish what is in flight. Returns them."""
        workers = list({id(batch.owner): batch.owner for batch in batches}.values())
        for worker in workers:
            self._cluster.stop(worker.actor)
        return workers

    def _hand_out(
        self, worker: _Worker, method: str, items: list[Item], mine: dict[Any, _Batch], done: set[int]
    ) -> None:
        stream = self._cluster.ask(worker.actor, method, items)
        batch = _Batch(items, {place for place, _ in items} - done, worker)
        worker.streams[stream] = mine[stream] = batch

    def _take_back(
        self, worker: _Worker, mine: dict[Any, _Batch], whole: bool, tries: Counter[int], why: str
    ) -> list[list[Item]]:
        """What a lost replica had in its hands and is still to be done."""
        self._replace(worker, why)
        found: list[list[Item]] = []
        for stream in worker.streams:
            batch = mine.pop(stream, None)  # None: another call's, which will find out for itself
            if batch is None or not batch.left:
                continue
            if not found:  # the one it was at work on; the others waited
                tries.update(batch.left)
            if any(tries[place] >= _TRIES for place in batch.left):
                raise SteeringError(
                    f"{_TRIES} replicas were lost with the same work in hand, the last one so: {why}. {_REMEDY}"
                )
            found.append(batch.items if whole else [item for item in batch.items if item[0] in batch.left])
        return found

    def _replace(self, worker: _Worker, why: str) -> None:
        """Put a new replica in a lost one's place."""
        if worker not in self._workers:
            return
        self.lost += 1
        if self.lost > _TRIES * max(len(self._workers), _TRIES):
            raise SteeringError(f"{self.lost} replicas were lost, the last one so: {why}. {_REMEDY}")
        log.warning("A replica was lost, number %s of this run; what it had in hand is done again: %s", self.lost, why)
        self._cluster.dismiss(worker.actor)
        self._workers[self._workers.index(worker)] = self._hire()

    def _wait(self, waiting: list[Any]) -> list[Any]:
        """What is ready of it, at least one."""
        waited = 0.0
        while not (ready := self._cluster.ready(waiting, timeout=1.0)):
            waited = 0.0 if any(w.starting is None for w in self._workers) else waited + 1.0
            if waited > _PATIENCE:
                raise SteeringError(
                    f"No replica has started within {_PATIENCE / 60:.0f} minutes; the cluster has "
                    f"{self._cluster.resources()}."
                )
        return ready

    def _note_started(self, ready: list[Any]) -> list[Any]:
        """Note the replicas that have started. Returns the rest of ``ready``: streams."""
        streams = []
        for one in ready:
            worker = next((w for w in self._workers if w.starting is not None and w.starting == one), None)
            if worker is None:
                streams.append(one)
                continue
            try:
                worker.about, worker.starting = self._cluster.value(one), None
            except LostError as error:
                self._replace(worker, str(error))
        return streams
