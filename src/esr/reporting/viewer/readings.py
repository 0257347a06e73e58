"""Activations on the tokens of responses, as the viewer shades them.

A value is sent as a whole number from 0 to 65,535 in units of 1/65,535 of its latent's highest value over all readings:
an error of at most 1/131,070 of that maximum, below what three printed digits show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esr.analysis.activations import KINDS, Activations, Reading
from esr.errors import UserError
from esr.reporting.viewer.blocks import Utf16, bounds, slices

STEPS = 65_535
MOST = 20_000_000
"""Values sent at most; readings beyond that are left out and the page says so."""
_BLOCK = 400_000  # values in a block


@dataclass(frozen=True, eq=False)
class TokenReadings:
    """What was read, with the text each token stands for."""

    activations: Activations
    ends: Mapping[str, Sequence[int]]
    """By trial: the character of the whole response at which each token ends."""
    labels: Mapping[int, str] = field(default_factory=dict)
    """Of latents, where known; untrusted."""


class PackedReadings:
    """The readings of the trials shown. ``positions``: trial key -> its place among the trials."""

    def __init__(self, readings: TokenReadings, positions: Mapping[str, int], texts: Sequence[str]) -> None:
        self._labels = readings.labels
        self._given = readings.activations
        every = _one_per_trial(readings.activations.readings)
        kept = [r for r in every if r.trial in positions and r.trial in readings.ends]
        for reading in kept:
            if len(readings.ends[reading.trial]) != len(reading.values):
                found = f"{len(readings.ends[reading.trial])} for {len(reading.values)} tokens of {reading.trial!a}"
                raise UserError("every token of a reading has its end in the text", found)
        room = np.cumsum([r.values.size for r in kept]) <= MOST
        self._kept = [r for r, fits in zip(kept, room, strict=True) if fits]
        self.left_out = len(every) - len(self._kept)
        self._ends = readings.ends
        self._positions, self._texts = positions, texts
        maxima = [np.zeros(len(self._given.latents)), *(r.values.max(axis=0, initial=0) for r in self._kept)]
        self._maxima: NDArray[np.float64] = np.max(maxima, axis=0)
        self._starts = bounds([r.values.size for r in self._kept], _BLOCK)

    def index(self) -> dict[str, Any]:
        """``of``: for each reading its trial, kind, restart, end of the restart phrase, end of the text (in tokens)
        and the ends of its tokens in the text; ``starts``: the first reading of each block."""
        columns = {latent: column for column, latent in enumerate(self._given.latents)}
        return {
            "kinds": KINDS,
            "latents": [[int(latent), str(self._labels.get(latent, ""))] for latent in self._given.latents],
            "maxima": [float(value) for value in self._maxima],
            "groups": [
                [name, [columns[latent] for latent in some], top]
                for (name, some), top in zip(self._given.groups.items(), self._group_maxima(), strict=True)
            ],
            "of": [self._entry(reading) for reading in self._kept],
            "starts": self._starts if self._kept else [],
            "left_out": self.left_out,
        }

    def blocks(self) -> Iterator[bytes]:
        """One after the other the readings of a block, each [latents, tokens] of little-endian 16-bit numbers."""
        scale = STEPS / np.where(self._maxima > 0, self._maxima, 1)
        for part in slices(self._starts, len(self._kept)):
            yield b"".join(
                np.rint(r.values.astype(np.float64) * scale).T.astype("<u2").tobytes() for r in self._kept[part]
            )

    def _group_maxima(self) -> list[float]:
        """The highest mean of each group's latents on any token."""
        weights = self._given.group_weights()
        tops = [(r.values @ weights).max(axis=0, initial=0) for r in self._kept]
        return [float(top) for top in np.max(tops, axis=0)] if tops else [0.0] * weights.shape[1]

    def _entry(self, reading: Reading) -> list[Any]:
        position = self._positions[reading.trial]
        utf16 = Utf16(self._texts[position])
        ends = [utf16(end) for end in self._ends[reading.trial]]
        steps = [b - a for a, b in zip([0, *ends], ends, strict=False)]
        kind = KINDS.index(reading.kind)
        return [position, kind, reading.restart, reading.correction_end, reading.end, steps]


def _one_per_trial(readings: Sequence[Reading]) -> list[Reading]:
    """A control that serves several episodes was read once: the first stands for it."""
    first: dict[str, Reading] = {}
    for reading in readings:
        first.setdefault(reading.trial, reading)
    return list(first.values())
