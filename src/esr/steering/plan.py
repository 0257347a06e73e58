"""The arithmetic of one batch at one layer, as tensors: no Python loop over rows.

A layer's interventions are laid out in *slots*: slot 0 holds every row's first add, slot 1 every row's second, and
so on, so one slot is a handful of tensor operations for the whole batch, whatever each row asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esr.steering.engine import Request
from esr.steering.interventions import Add, Clamp, Direction, Schedule
from esr.subjects.latents import LatentReader

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]

_FAR = 2**40  # beyond any position: an open end of a schedule


def _bounds(schedule: Schedule) -> tuple[int, int]:
    start = -_FAR if schedule.start is None else schedule.start
    return start, _FAR if schedule.end is None else schedule.end


@dataclass
class _Window:
    """Where each row's intervention of one slot applies. ``start`` and ``end``: long tensors, any trailing shape."""

    start: Tensor
    end: Tensor
    unbounded: bool
    """Every row has an intervention here and none has a bound: nothing needs masking while decoding."""

    def covers(self, positions: Tensor, valid: Tensor) -> Tensor:
        """Bool mask; positions and valid are [B, T] (or [B, T, 1] for latent-wise windows)."""
        start, end = (b.unsqueeze(1) for b in (self.start, self.end))
        return (positions >= start) & (positions < end) & valid

    def of(self, rows: Tensor) -> _Window:
        """The windows of these rows, [N]; a row may come several times."""
        return _Window(self.start[rows], self.end[rows], self.unbounded)


def _from_host(direction: Direction) -> Tensor:
    return torch.from_numpy(direction.vector.copy())


class LayerPlan:
    """All interventions of a batch at one decoder layer.

    ``counts`` accumulates, per row, the positions really changed (long, [B]); the engine compares it with the
    schedules when a row ends, so steering that did not happen cannot go unnoticed. ``vector`` gives a direction as a
    float32 tensor [d_model]; default: from its array.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        layer: int,
        reader: LatentReader | None,
        device: torch.device,
        vector: Callable[[Direction], Tensor] = _from_host,
    ) -> None:
        self.layer = layer
        rows = len(requests)
        self.counts = torch.zeros(rows, dtype=torch.long, device=device)
        self.finite = torch.ones(rows, dtype=torch.bool, device=device)
        adds = [[i for i in r.interventions if isinstance(i, Add) and i.layer == layer] for r in requests]
        clamps = [[i for i in r.interventions if isinstance(i, Clamp) and i.layer == layer] for r in requests]
        self._adds = [self._add_slot(adds, k, device, vector) for k in range(max(map(len, adds)))]
        self._clamps: list[tuple[_Window, Tensor]] = []
        if any(clamps):
            assert reader is not None  # the engine has refused such requests
            self._reader = reader
            self._lay_out_clamps(clamps, device)
            self._reads_steered = torch.tensor([r.clamp_reads == "steered" for r in requests], device=device)

    @staticmethod
    def _add_slot(
        adds: list[list[Add]], k: int, device: torch.device, vector: Callable[[Direction], Tensor]
    ) -> tuple[_Window, Tensor]:
        chosen = [row[k] if k < len(row) else None for row in adds]
        anyone = next(a for a in chosen if a is not None)  # where a row has no k-th add: 0 * its vector, nowhere
        vectors = torch.stack([vector((a or anyone).direction) for a in chosen]).to(device)
        boosts = torch.tensor([0.0 if a is None else a.boost for a in chosen], device=device)
        bounds = [(0, 0) if a is None else _bounds(a.schedule) for a in chosen]
        start, end = torch.tensor(bounds, device=device).T
        unbounded = all(a is not None and a.schedule == Schedule() for a in chosen)
        return _Window(start, end, unbounded), (boosts.unsqueeze(1) * vectors).unsqueeze(1)

    def _lay_out_clamps(self, clamps: list[list[Clamp]], device: torch.device) -> None:
        """One column per distinct latent; a latent clamped again in a row (another stretch) goes to the next slot."""
        columns = {latent: c for c, latent in enumerate(sorted({c.latent for row in clamps for c in row}))}
        self._latents = torch.tensor(list(columns), device=device)
        shape = (len(clamps), len(columns))
        slots: list[tuple[IntArray, IntArray, FloatArray]] = []  # filled in numpy: a tensor takes ten times as long
        for row, wanted in enumerate(clamps):
            seen: dict[int, int] = {}
            for clamp in wanted:
                k = seen[clamp.latent] = seen.get(clamp.latent, -1) + 1
                if k == len(slots):  # no position is covered where a row has no clamp of the latent
                    slots.append((np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.float32)))
                start, end, value = slots[k]
                place = row, columns[clamp.latent]
                (start[place], end[place]), value[place] = _bounds(clamp.schedule), clamp.value
        for slot in slots:
            first, beyond, values = (torch.from_numpy(array).to(device) for array in slot)
            self._clamps.append((_Window(first, beyond, False), values.unsqueeze(1)))

    def apply(self, h: Tensor, positions: Tensor, valid: Tensor) -> Tensor:
        """The steered residual stream.

        h: [B, T, d_model]; positions: [B, T] response positions (prompt negative); valid: [B, T], False on padding
        and on rows that have ended.
        """
        steered = h
        decoding = h.shape[1] == 1
        for window, vectors in self._adds:
            vectors = vectors.to(h.dtype)
            if window.unbounded and decoding:  # rows that have ended change too; nobody reads them
                steered = steered + vectors
                self.counts += valid[:, 0]
            else:
                on = window.covers(positions, valid)
                steered = steered + vectors * on.unsqueeze(-1)
                self.counts += on.sum(1)
        if self._clamps:
            read = torch.where(self._reads_steered[:, None, None], steered, h)
            activations = self._reader.activations(read, self._latents)
            for window, values in self._clamps:
                on = window.covers(positions.unsqueeze(-1), valid.unsqueeze(-1))
                change = torch.where(on, values.to(activations.dtype) - activations, 0)
                delta = self._reader.decode_change(read, change, self._latents)
                # `where`, not `*`: a run-time normalisation may leave NaN on padding, and 0 * NaN is NaN
                steered = torch.where(on.any(-1, keepdim=True), steered + delta.to(h.dtype), steered)
                self.counts += on.sum((1, 2))
        self.finite &= (torch.isfinite(steered).all(-1) | ~valid).all(1)
        return steered

    def apply_tokens(self, h: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """The steered residual stream of a batch without padding, as engines with continuous batching hold it.

        h: [N, d_model], the tokens of all rows one after another; rows: [N] long, whose token each is; positions: [N]
        as for ``apply``.
        """
        tokens = copy(self)  # the same plan with one row per token
        tokens.counts = torch.zeros_like(rows)
        tokens.finite = torch.ones_like(rows, dtype=torch.bool)
        tokens._adds = [(window.of(rows), vectors[rows]) for window, vectors in self._adds]
        tokens._clamps = [(window.of(rows), values[rows]) for window, values in self._clamps]
        if self._clamps:
            tokens._reads_steered = self._reads_steered[rows]
        steered = tokens.apply(h.unsqueeze(1), positions.unsqueeze(1), tokens.finite.clone().unsqueeze(1)).squeeze(1)
        self.counts.index_add_(0, rows, tokens.counts)
        broken = torch.zeros_like(self.counts).index_add_(0, rows, (~tokens.finite).long())
        self.finite &= broken == 0
        return steered


def expected_positions(request: Request, layer: int, processed: int) -> int:
    """How many positions the plan of a layer must have changed for a request when the model has processed the
    prompt and ``processed`` response tokens."""
    first = -len(request.prompt_ids)
    return sum(i.schedule.count(first, processed) for i in request.interventions if i.layer == layer)
