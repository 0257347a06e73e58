"""The part that lives in a replica's process: one engine, made there when it is first asked for something.

What comes back is a stream of (place, result), so that the study's process knows what a replica that died had done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from esr.steering.stopping import stop

if TYPE_CHECKING:
    from esr.steering.engine import Engine, Request
    from esr.steering.interventions import Intervention

Item = tuple[int, Any]
"""(place in the work, what to do or what came out)."""


class Replica:
    """One engine. Made into a Ray actor by ``cluster``; methods are called one after another, except for ``stop``."""

    def __init__(self, spec: str, settings: str, sharing: int) -> None:
        """``spec``, ``settings``: SubjectSpec and EngineSettings as JSON; ``sharing``: replicas in the same memory."""
        self._spec, self._settings, self._sharing = spec, settings, sharing
        self._engine: Engine | None = None
        self._rows = 0

    def start(self) -> dict[str, str]:
        """Load the subject and start its engine, unless that is done. Returns what the engine says about itself, the
        process id, and the most rows it may have in flight."""
        return self._started().about() | {"pid": str(os.getpid()), "rows": str(self._rows)}

    def stop(self) -> None:
        """Called while ``generate`` runs: what is in flight is finished, nothing else begun, until ``resume``."""
        stop.ask()

    def resume(self) -> None:
        """Generate again."""
        stop.forget()

    def _started(self) -> Engine:
        if self._engine is None:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # this is already a process of its own
            import transformers

            from esr.steering.make import load_for, start_engine
            from esr.steering.memory import fitting_rows
            from esr.steering.settings import BATCH, EngineSettings
            from esr.subjects.spec import SubjectSpec

            transformers.utils.logging.disable_progress_bar()
            settings = EngineSettings.model_validate_json(self._settings)
            subject = load_for(SubjectSpec.model_validate_json(self._spec), settings)
            self._engine = start_engine(subject, settings, sharing=self._sharing)
            self._rows = settings.batch_size or (fitting_rows(subject, ()) if settings.backend == "hf" else BATCH)
        return self._engine

    def generate(self, items: Sequence[tuple[int, Request]]) -> Iterator[Item]:
        """Responses, as they finish."""
        places = {request.id: place for place, request in items}
        for response in self._started().generate([request for _, request in items]):
            yield places[response.id], response

    def activity(self, items: Sequence[tuple[int, tuple[Request, int, int]]]) -> Iterator[Item]:
        """See ``Engine.activity``; in order."""
        found = self._started().activity([text for _, text in items])
        yield from _placed(items, found)

    def readings(self, items: Sequence[tuple[int, tuple[Request, tuple[int, ...]]]]) -> Iterator[Item]:
        """See ``Engine.readings``; the latents are the same in all items."""
        latents = items[0][1][1]
        found = self._started().readings([request for _, (request, _) in items], latents)
        yield from _placed(items, found)

    def divergences(
        self, items: Sequence[tuple[int, tuple[Request, Sequence[tuple[Intervention, ...]]]]]
    ) -> Iterator[Item]:
        """See ``Engine.divergences``; in order."""
        found = self._started().divergences([text for _, text in items])
        yield from _placed(items, found)


def _placed(items: Sequence[Item], found: Iterable[Any]) -> Iterator[Item]:
    """Results with the places of their items. A generator, because Ray sends values into what it is given."""
    for (place, _), result in zip(items, found, strict=True):
        yield place, result
