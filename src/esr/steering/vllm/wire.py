"""What travels between the engine and its workers, as plain data: numbers, strings, lists and bytes.

A request carries the digests of its directions; the vectors themselves are registered in the workers once. Arrays
travel as bytes, because vLLM's remote calls lose the data of arrays that come from another process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esr.steering.engine import Request
from esr.steering.interventions import Add, Clamp, Direction, Intervention, Schedule
from esr.subjects.latents import Activity

EXTRA = "esr"
"""Where a packed request lies in vLLM's ``SamplingParams.extra_args``."""


@dataclass(frozen=True)
class Reading:
    """What to read at the read layer while a text is teacher-forced."""

    latents: tuple[int, ...] | None = None
    """These latents at every token; None: every latent's activity over the positions start..end-1."""
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Comparing:
    """Compare next-token distributions while a text is teacher-forced (``esr.steering.divergence``)."""

    text: int
    """Number of the text: all requests that read it have the same."""
    places: tuple[int, ...]
    """Positions of the text to compare at, rising."""
    plain: bool
    """Whether this request gives the distributions that the text's other requests are compared with. It has to have
    finished before they begin."""


@dataclass(frozen=True)
class Report:
    """What one worker did for one finished request."""

    processed: int
    """Tokens the model has processed, prompt included."""
    counts: dict[int, int]
    """{layer: positions changed} for the steered layers this worker holds."""
    broken: str
    """A layer at which the residual stream was not finite, or ``the last one``; ``""``: it was finite."""
    skipped: str
    """Why positions were not seen, in words; ``""``: all were."""
    data: list[bytes]
    """The reading or comparison, as ``pack_latents``, ``pack_activity`` or ``pack_measures`` made it; empty on workers
    that have none."""

    def packed(self) -> list[Any]:
        """As plain data."""
        return [self.processed, [[k, n] for k, n in self.counts.items()], self.broken, self.skipped, self.data]

    @classmethod
    def unpacked(cls, packed: Sequence[Any]) -> Report:
        """The inverse of ``packed``."""
        processed, counts, broken, skipped, data = packed
        return cls(processed, dict(counts), broken, skipped, list(data))


def pack_request(key: int, request: Request, wanted: Reading | Comparing | None = None) -> dict[str, Any]:
    """All that a worker needs beyond the token ids, which it has. ``wanted``: what to find out about the text."""
    return {
        "key": key,
        "prompt": len(request.prompt_ids),
        "clamp_reads": request.clamp_reads,
        "interventions": [_pack_intervention(i) for i in request.interventions],
        "reading": [_listed(wanted.latents), wanted.start, wanted.end] if isinstance(wanted, Reading) else None,
        "comparing": [wanted.text, list(wanted.places), wanted.plain] if isinstance(wanted, Comparing) else None,
    }


def _listed(latents: tuple[int, ...] | None) -> list[int] | None:
    return None if latents is None else list(latents)


def _pack_intervention(i: Intervention) -> list[Any]:
    where = [i.layer, i.schedule.start, i.schedule.end]
    if isinstance(i, Add):
        return ["add", i.direction.digest, i.boost, *where]
    return ["clamp", i.latent, i.value, *where]


def unpack_request(
    data: Mapping[str, Any], token_ids: Sequence[int], directions: Mapping[str, Direction]
) -> tuple[Request, Reading | Comparing | None]:
    """The inverse of ``pack_request``; the request's id is its key, its sampling is left at the default."""
    interventions: list[Intervention] = []
    for kind, what, value, layer, start, end in data["interventions"]:
        schedule = Schedule(start, end)
        if kind == "add":
            interventions.append(Add(directions[what], value, layer, schedule))
        else:
            interventions.append(Clamp(what, value, layer, schedule))
    split = data["prompt"]
    request = Request(
        id=str(data["key"]),
        prompt_ids=tuple(token_ids[:split]),
        prefill_ids=tuple(token_ids[split:]),
        interventions=tuple(interventions),
        clamp_reads=data["clamp_reads"],
    )
    if data["reading"] is not None:
        latents, start, end = data["reading"]
        return request, Reading(None if latents is None else tuple(latents), start, end)
    if data["comparing"] is not None:
        text, places, plain = data["comparing"]
        return request, Comparing(text, tuple(places), plain)
    return request, None


def pack_latents(activations: NDArray[np.float32]) -> list[bytes]:
    """Activations [tokens, latents] as bytes."""
    return [np.ascontiguousarray(activations, np.float32).tobytes()]


def unpack_latents(data: Sequence[bytes], tokens: int, latents: int) -> NDArray[np.float32]:
    """The inverse of ``pack_latents``."""
    return np.frombuffer(data[0], np.float32).reshape(tokens, latents).copy()


def pack_activity(activity: Activity) -> list[bytes]:
    """An activity as bytes."""
    return [
        str(activity.tokens).encode(),
        activity.maximum.astype(np.float32).tobytes(),
        activity.total.astype(np.float64).tobytes(),
        activity.active.astype(np.int64).tobytes(),
    ]


def unpack_activity(data: Sequence[bytes]) -> Activity:
    """The inverse of ``pack_activity``."""
    tokens, maximum, total, active = data
    return Activity(
        int(tokens),
        np.frombuffer(maximum, np.float32).copy(),
        np.frombuffer(total, np.float64).copy(),
        np.frombuffer(active, np.int64).copy(),
    )


def pack_measures(measures: NDArray[np.float64]) -> list[bytes]:
    """Measures of one request as bytes."""
    return [measures.astype(np.float64).tobytes()]


def unpack_measures(data: Sequence[bytes]) -> NDArray[np.float64]:
    """The inverse of ``pack_measures``."""
    return np.frombuffer(data[0], np.float64).copy()
