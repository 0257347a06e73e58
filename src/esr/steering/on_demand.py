"""An engine that starts when it is first needed.

Starting vLLM or replicas takes most of a minute and a GPU's memory. A study whose responses are all stored needs
neither, and what is closed in between (before a fine-tuning trains on the same GPU) starts again by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from esr.steering.checks import check_ids
from esr.steering.engine import Engine, Request, Response
from esr.steering.interventions import Intervention

if TYPE_CHECKING:
    from esr.subjects.latents import Activity


class OnDemand:
    """See ``esr.steering.engine.Engine``. ``check``: its ``check``, which needs no engine; ``start`` makes one."""

    def __init__(self, check: Callable[[Request], None], start: Callable[[], Engine]) -> None:
        self.check = check
        self._start = start
        self._engine: Engine | None = None

    def started(self) -> Engine:
        """The engine."""
        if self._engine is None:
            self._engine = self._start()
        return self._engine

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """See ``Engine.generate``. No request needs no engine."""
        check_ids(requests)
        for request in requests:
            self.check(request)
        return self.started().generate(requests) if requests else iter(())

    def read(
        self,
        token_ids: Sequence[int],
        latents: Sequence[int],
        interventions: Sequence[Intervention] = (),
        *,
        prompt_length: int | None = None,
    ) -> NDArray[np.float32]:
        """See ``Engine.read``."""
        return self.started().read(token_ids, latents, interventions, prompt_length=prompt_length)

    def readings(self, requests: Iterable[Request], latents: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.readings``."""
        return self.started().readings(requests, latents)

    def activity(self, texts: Iterable[tuple[Request, int, int]]) -> Iterator[Activity]:
        """See ``Engine.activity``."""
        return self.started().activity(texts)

    def max_activations(self, sequences: Iterable[tuple[Sequence[int], int, int]]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.max_activations``."""
        return self.started().max_activations(sequences)

    def divergences(
        self, texts: Iterable[tuple[Request, Sequence[tuple[Intervention, ...]]]]
    ) -> Iterator[NDArray[np.float64]]:
        """See ``Engine.divergences``."""
        return self.started().divergences(texts)

    def about(self) -> dict[str, str]:
        """See ``Engine.about``."""
        return {} if self._engine is None else self._engine.about()

    def close(self) -> None:
        """See ``Engine.close``. What is asked afterwards starts it anew."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
