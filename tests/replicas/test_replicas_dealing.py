"""How work is dealt out and taken back, with replicas that die at any moment: on a simulated cluster, whose replicas do
in one thread what Ray's do in many. With real ones: test_replicas.py, test_replicas_study.py."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from esr.errors import SteeringError
from esr.steering.replicas.cluster import LostError
from esr.steering.replicas.dealing import Dealer
from esr.steering.replicas.engine import shares

IN_FLIGHT = 3


@dataclass(eq=False)
class Stream:
    actor: Actor
    left: list[Any]


@dataclass(eq=False)
class Actor:
    alive: bool = True
    queue: list[Stream] = field(default_factory=list)


class Simulated:
    """Replicas die with a chance of ``dying`` at each result, and while they start; ``poison``: a place that kills."""

    def __init__(self, seed: int, dying: float = 0.0, poison: int | None = None) -> None:
        self.rng, self.dying, self.poison = random.Random(seed), dying, poison
        self.made = 0
        self.asked: Counter[int] = Counter()
        self.given: set[int] = set()
        self.asked_though_given = 0
        self.most_out = 0
        self.actors: list[Actor] = []
        self.stopped: list[Actor] = []
        self.resumed: list[Actor] = []

    def make(self) -> Actor:
        self.made += 1
        self.actors.append(Actor())
        return self.actors[-1]

    def dismiss(self, actor: Actor) -> None:
        actor.alive = False

    def start(self, actor: Actor) -> Any:
        return ("start", actor)

    def value(self, started: Any) -> dict[str, str]:
        self._risk(started[1])
        return {"pid": "1"}

    def _risk(self, actor: Actor) -> None:
        if self.rng.random() < self.dying:
            actor.alive = False
        if not actor.alive:
            raise LostError("died")

    def ask(self, actor: Actor, method: str, items: list[Any]) -> Stream:
        self.asked.update(place for place, _ in items)
        self.asked_though_given += sum(place in self.given for place, _ in items)
        stream = Stream(actor, list(items))
        actor.queue.append(stream)
        self.most_out = max(self.most_out, sum(len(s.left) for a in self.actors if a.alive for s in a.queue))
        return stream

    def ready(self, waiting: list[Any], timeout: float) -> list[Any]:
        def can(one: Any) -> bool:  # one call after another in each replica
            return isinstance(one, tuple) or not one.actor.alive or one.actor.queue[0] is one

        able = [one for one in waiting if can(one)]
        assert able, "would wait for ever"
        return self.rng.sample(able, self.rng.randint(1, len(able)))

    def next(self, stream: Stream) -> Any:
        self._risk(stream.actor)
        if not stream.left:
            stream.actor.queue.remove(stream)
            return None
        if stream.left[0][0] == self.poison:
            stream.actor.alive = False
            raise LostError("poisoned")
        place, what = stream.left.pop(0)
        self.given.add(place)
        return place, what * 10

    def stop(self, actor: Actor) -> None:
        self.stopped.append(actor)
        for stream in actor.queue:
            del stream.left[IN_FLIGHT if stream is actor.queue[0] else 0 :]

    def resume(self, actor: Actor) -> None:
        self.resumed.append(actor)

    def resources(self) -> str:
        return "nothing"


def batches(n: int, size: int) -> Any:
    return iter([[(k, k) for k in range(at, min(n, at + size))] for at in range(0, n, size)])


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("whole", [False, True])
def test_every_piece_of_work_gives_one_result_whoever_dies(seed: int, whole: bool) -> None:
    cluster: Any = Simulated(seed, dying=0.01)
    dealer = Dealer(cluster, 1 + seed % 4)
    found = list(dealer.deal("any", batches(60, 1 + seed % 9), whole=whole))
    assert sorted(found) == [(k, k * 10) for k in range(60)]
    assert cluster.made == 1 + seed % 4 + dealer.lost
    assert whole or cluster.asked_though_given == 0
    assert dealer.lost or not any(n > 1 for n in cluster.asked.values()), "nothing is done twice without a loss"


def test_replicas_do_die_in_these_runs() -> None:
    lost = 0
    for seed in range(20):
        cluster: Any = Simulated(seed, dying=0.01)
        dealer = Dealer(cluster, 2)
        list(dealer.deal("any", batches(60, 5)))
        lost += dealer.lost
    assert lost > 5


def test_work_that_kills_stops_after_three_replicas() -> None:
    cluster: Any = Simulated(0, poison=17)
    with pytest.raises(SteeringError, match=r"3 replicas were lost with the same work in hand, .*: poisoned\..*memory"):
        list(Dealer(cluster, 2).deal("any", batches(40, 4)))


def test_replicas_that_never_start_stop_the_work() -> None:
    cluster: Any = Simulated(0, dying=1.0)
    with pytest.raises(SteeringError, match=r"10 replicas were lost, the last one so: died\. .*memory"):
        list(Dealer(cluster, 2).deal("any", batches(40, 4)))


@pytest.mark.parametrize("seed", range(20))
def test_a_call_inside_of_another_suspended_one(seed: int) -> None:
    cluster: Any = Simulated(seed)

    def read_on(actor: Actor) -> None:  # a real replica goes on although nobody takes its results
        actor.queue.clear()

    dealer = Dealer(cluster, 2)
    outer = dealer.deal("any", batches(40, 4))
    first = next(outer)
    waiting = [s for a in cluster.actors for s in a.queue]
    for actor in cluster.actors:
        read_on(actor)
    inner = list(dealer.deal("any", batches(12, 3)))
    assert sorted(inner) == [(k, k * 10) for k in range(12)]
    for stream in waiting:
        stream.actor.queue.append(stream)
    assert sorted([first, *outer]) == [(k, k * 10) for k in range(40)]


def test_little_is_out_at_a_time_and_nothing_new_when_it_may_not() -> None:
    cluster: Any = Simulated(1)
    dealer = Dealer(cluster, 2)
    drawn = count()

    def work() -> Any:
        for items in batches(1000, 5):
            next(drawn)
            yield items

    found: list[Any] = []

    def may() -> bool:
        return len(found) < 100

    for item in dealer.deal("any", work(), may=may):
        found.append(item)
    assert cluster.most_out <= 2 * 2 * 5
    assert 100 <= len(found) <= 100 + 2 * 2 * 5
    assert next(drawn) * 5 == len(found), "what was handed out came back"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dying", [0.0, 0.01])
def test_a_stop_ends_with_what_is_in_flight(seed: int, dying: float) -> None:
    cluster: Any = Simulated(seed, dying)
    dealer = Dealer(cluster, 2)
    found: list[Any] = []
    for item in dealer.deal("any", batches(1000, 50), stopping=lambda: len(found) >= 100):
        found.append(item)
    assert 100 <= len(found) <= 101 + 2 * IN_FLIGHT  # one more may have been ready
    assert len(set(found)) == len(found)
    assert cluster.resumed == cluster.stopped
    assert dealer.lost or len(cluster.stopped) == 2
    assert len(list(dealer.deal("any", batches(20, 5)))) == 20


def test_while_a_replica_starts_work_is_left_for_it() -> None:
    cluster: Any = Simulated(0)
    dealer = Dealer(cluster, 2)
    cluster.ready = lambda waiting, timeout: waiting[:1]  # the second one starts last of all
    list(dealer.deal("any", batches(2, 1)))
    assert cluster.most_out == 1


def test_a_lost_replica_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    cluster: Any = Simulated(0, dying=0.01)
    dealer = Dealer(cluster, 2)
    list(dealer.deal("any", batches(200, 5)))
    assert dealer.lost > 0
    told = [record.getMessage() for record in caplog.records if "replica was lost" in record.getMessage()]
    assert len(told) == dealer.lost
    assert "died" in told[0]


@pytest.mark.parametrize("requests", [1, 5, 64, 128, 256, 257, 768, 100_000])
@pytest.mark.parametrize("replicas", [1, 2, 7])
def test_every_share_fills_a_replica_or_all_have_the_same(requests: int, replicas: int) -> None:
    sizes = list(shares(requests, replicas, 64))
    assert sum(sizes) == requests
    first, last = sizes[:-replicas], sizes[-replicas:]
    assert max(last) - min(last) <= 1
    assert all(64 <= size <= 16 * 64 for size in first)
    assert first == sorted(first, reverse=True)
    assert requests > 2 * 64 * replicas or not first
