"""What is done to the residual stream: directions, adds, clamps and the positions they apply to.

Arithmetic at one decoder layer's output h, shape [d_model] (arXiv 2602.06941; the order is the published one):

    add     h <- h + boost * d
    clamp   h <- h + sum_i (v_i - a_i(r)) * W_dec[i]     a_i = the SAE's own activation of latent i

All clamps of a request read the same r: the h that came in (``clamp_reads="incoming"``, published) or the h after
the adds (``"steered"``, so that a latent really ends at v). A zero boost and no clamp leave h bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from esr.errors import UserError

ClampReads = Literal["incoming", "steered"]


@dataclass(frozen=True)
class Direction:
    """A vector that can be added to the residual stream.

    Two directions are equal when their ids and their numbers are equal.
    """

    id: str
    """Stable name within a study, for example ``latent:1203`` or ``vector:paris``."""
    vector: NDArray[np.float32] = field(repr=False, compare=False)
    """Shape [d_model], exactly as stored: never normalised unless the user asked for it."""
    label: str = ""
    """What the direction is said to mean; may be empty. Untrusted text."""

    def __post_init__(self) -> None:
        vector = np.ascontiguousarray(self.vector, dtype=np.float32)
        if vector.ndim != 1 or vector.size == 0:
            raise UserError("a direction is one vector of shape [d_model]", f"shape {vector.shape} for {self.id}")
        if not np.isfinite(vector).all():
            raise UserError("a direction holds finite numbers only", f"NaN or infinity in {self.id}")
        vector.setflags(write=False)
        object.__setattr__(self, "vector", vector)

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the vector's float32 bytes."""
        return hashlib.sha256(self.vector.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Schedule:
    """The token positions an intervention covers: the half-open interval [start, end).

    Positions count from the first token of the *response* (a prefill is part of the response), so the prompt's
    tokens are negative: position -1 is the last token of the prompt, the one that predicts the first answer token.
    ``None`` means no bound on that side.
    """

    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise UserError("a schedule covers at least one position (start < end)", f"[{self.start}, {self.end})")

    @classmethod
    def from_token(cls, n: int) -> Schedule:
        """On from response token n (0 = the first)."""
        return cls(start=n)

    @classmethod
    def until_token(cls, n: int) -> Schedule:
        """On for the prompt and the response tokens before n."""
        return cls(end=n)

    def count(self, first: int, last: int) -> int:
        """How many of the positions first, first + 1, ..., last - 1 are covered."""
        low = first if self.start is None else max(first, self.start)
        high = last if self.end is None else min(last, self.end)
        return max(0, high - low)

    def overlaps(self, other: Schedule) -> bool:
        """Whether some position is covered by both."""
        starts = [s.start for s in (self, other) if s.start is not None]
        ends = [s.end for s in (self, other) if s.end is not None]
        return not starts or not ends or max(starts) < min(ends)


ALL = Schedule()
PROMPT_ONLY = Schedule(end=0)
RESPONSE_ONLY = Schedule(start=0)


@dataclass(frozen=True)
class Add:
    """h <- h + boost * direction, at the output of decoder layer ``layer`` (0-based)."""

    direction: Direction
    boost: float
    """Scalar in front of the direction; in latent units for SAE decoder rows. Any finite number."""
    layer: int
    schedule: Schedule = ALL

    def __post_init__(self) -> None:
        if not math.isfinite(self.boost):
            raise UserError("a boost is a finite number", f"{self.boost} for {self.direction.id}")

    def describe(self) -> dict[str, Any]:
        """What determines the effect, as plain data: the material of store keys."""
        d = self.direction
        return {
            "add": d.id, "digest": d.digest, "boost": self.boost, "layer": self.layer,
            "positions": [self.schedule.start, self.schedule.end],
        }  # fmt: skip


@dataclass(frozen=True)
class Clamp:
    """Hold SAE latent ``latent`` at ``value`` at the output of decoder layer ``layer``; value 0 ablates it.

    The SAE is the subject's. ``layer`` is normally the layer the SAE was trained on.
    """

    latent: int
    value: float
    """In the SAE's own activation units. Finite."""
    layer: int
    schedule: Schedule = ALL

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise UserError("a clamp value is a finite number", f"{self.value} for latent {self.latent}")

    def describe(self) -> dict[str, Any]:
        """What determines the effect, as plain data: the material of store keys."""
        return {
            "clamp": self.latent, "value": self.value, "layer": self.layer,
            "positions": [self.schedule.start, self.schedule.end],
        }  # fmt: skip


Intervention = Add | Clamp
