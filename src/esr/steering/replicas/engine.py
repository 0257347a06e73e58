"""One engine made of several: the study's process hands work out and is the only one that writes.

float32 results on a CPU are those of one engine, bit for bit: neither a response nor a reading depends on what else is
computed (see ``esr.steering.hf``), so it does not matter which replica does what, or that one is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esr.steering.checks import check_ids
from esr.steering.engine import Request, Response, text_request
from esr.steering.interventions import Intervention
from esr.steering.replicas.cluster import Cluster
from esr.steering.replicas.dealing import Dealer
from esr.steering.replicas.replica import Item
from esr.steering.settings import EngineSettings
from esr.steering.stopping import stop
from esr.subjects.spec import SubjectSpec

if TYPE_CHECKING:
    from esr.subjects.latents import Activity

_TEXTS = 32  # texts in one batch of reading
_MOST = 16  # rows' worth of requests in one batch of generating: what a replica keeps in memory and may lose
_READ_AHEAD = 2  # batches of reading per replica that may be out or wait for an earlier one: what memory holds


class Replicas:
    """See ``esr.steering.engine.Engine``. ``check``: what refuses a request, here, before it is handed out; ``spec``:
    the subject that every replica loads.

    Raises UserError as ``Cluster``.
    """

    def __init__(self, settings: EngineSettings, check: Callable[[Request], None], spec: SubjectSpec) -> None:
        self.check = check
        self._settings = settings
        self._cluster = Cluster(spec, settings)
        self._dealer = Dealer(self._cluster, settings.replicas)

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """See ``Engine.generate``. Requests go out in the order of their length: like with like fills a batch best."""
        check_ids(requests)
        for request in requests:
            self.check(request)
        order = sorted(requests, key=lambda r: len(r.prompt_ids) + len(r.prefill_ids))
        batches = self._batches(list(enumerate(order)))
        return (response for _, response in self._dealer.deal("generate", batches, stopping=lambda: stop.asked))

    def _batches(self, items: list[Item]) -> Iterator[list[Item]]:
        """Asked for when a replica runs. See ``shares``."""
        rows = max(int(one["rows"]) for one in self._dealer.started())
        at = 0
        for size in shares(len(items), self._settings.replicas, rows):
            yield items[at : at + size]
            at += size

    def read(
        self,
        token_ids: Sequence[int],
        latents: Sequence[int],
        interventions: Sequence[Intervention] = (),
        *,
        prompt_length: int | None = None,
    ) -> NDArray[np.float32]:
        """See ``Engine.read``."""
        return next(self.readings([text_request(token_ids, interventions, prompt_length)], latents))

    def readings(self, requests: Iterable[Request], latents: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.readings``."""
        return self._in_order("readings", ((request, tuple(latents)) for request in requests))

    def activity(self, texts: Iterable[tuple[Request, int, int]]) -> Iterator[Activity]:
        """See ``Engine.activity``."""
        return self._in_order("activity", iter(texts))

    def max_activations(self, sequences: Iterable[tuple[Sequence[int], int, int]]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.max_activations``."""
        for activity in self.activity((Request("read", tuple(ids)), start, end) for ids, start, end in sequences):
            yield activity.maximum

    def divergences(
        self, texts: Iterable[tuple[Request, Sequence[tuple[Intervention, ...]]]]
    ) -> Iterator[NDArray[np.float64]]:
        """See ``Engine.divergences``. Texts are handed out one by one: each is read many times."""
        return self._in_order("divergences", iter(texts), 1)

    def _in_order(self, method: str, texts: Iterator[Any], each: int = _TEXTS) -> Iterator[Any]:
        """Results in the order of the texts, of which a bounded number is drawn ahead. ``each``: texts in one batch."""
        results: dict[int, Any] = {}
        drawn = given = 0
        window = each * _READ_AHEAD * self._settings.replicas

        def batches() -> Iterator[list[Item]]:
            nonlocal drawn
            while batch := list(islice(texts, each)):
                items = list(enumerate(batch, drawn))
                drawn += len(batch)
                yield items

        def may() -> bool:
            return drawn - given < window

        for place, result in self._dealer.deal(method, batches(), whole=True, may=may):
            results[place] = result
            while given in results:
                found = results.pop(given)
                given += 1  # before it is given away: what asks for the next may be handed out meanwhile
                yield found

    def about(self) -> dict[str, str]:
        """See ``Engine.about``: what the replicas have in common, how many there are, and how many were lost."""
        every = self._dealer.started()
        names = sorted({name for one in every for name in one} - {"pid", "rows"})
        same = {name: ", ".join(sorted({one[name] for one in every if name in one})) for name in names}
        lost = {"replicas lost": str(self._dealer.lost)} if self._dealer.lost else {}
        return same | {"replicas": str(self._settings.replicas)} | lost

    def close(self) -> None:
        """See ``Engine.close``: ends the replicas."""
        self._cluster.close()


def shares(requests: int, replicas: int, rows: int) -> Iterator[int]:
    """Sizes of the batches that requests are handed out in, to replicas that hold so many rows.

    Every batch ends on fewer and fewer rows, so few and large ones: half of a fair share of what is left each, up to a
    limit, until no more is left than fills all replicas twice: that is shared out equally.
    """
    left = requests
    parts = 2 * replicas if replicas > 1 else 1  # one alone waits for nobody
    while left > 2 * replicas * rows:
        size = min(_MOST * rows, left // parts)
        yield size
        left -= size
    yield from (size for k in range(replicas) if (size := (left + k) // replicas))
