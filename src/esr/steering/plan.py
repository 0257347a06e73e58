"""The arithmetic of one batch at one layer, as tensors: no Python loop over rows.

A layer's interventions are laid out in *slots*: slot 0 holds every row's first add, slot 1 every row's second, and so
on, and the clamps of all rows lie in one block, so the batch takes a handful of tensor operations whatever each row
asks for. Decoding goes through ``prepare`` and ``step``: which rows are steered now follows from the schedules alone,
so it is worked out on the host and only when it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esr.steering.clamping import ClampedLatents
from esr.steering.engine import Request
from esr.steering.interventions import Add, Clamp, Direction, Schedule
from esr.steering.rows import MIN_ROWS
from esr.subjects.latents import LatentReader

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

serials = count(1)
"""Numbers for what decoding steps are made of: a recorded step writes down those of its parts (``graphs``)."""

_FAR = 2**40  # beyond any position: an open end of a schedule


def _bounds(schedule: Schedule) -> tuple[int, int]:
    start = -_FAR if schedule.start is None else schedule.start
    return start, _FAR if schedule.end is None else schedule.end


class _Window:
    """Where the interventions of one slot apply: [B] or [B, c] bounds; equal bounds where a row has none."""

    def __init__(
        self, start: IntArray, end: IntArray, device: torch.device, tensors: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.start, self.end = start, end
        self.unbounded = bool((start == -_FAR).all() and (end == _FAR).all())
        """Every row has an intervention here and none has a bound: while decoding nothing needs masking."""
        self._device = device
        self._tensors = tensors

    def covers(self, positions: Tensor, valid: Tensor) -> Tensor:
        """Bool mask; positions and valid are [B, T] (or [B, T, 1] for latent-wise windows)."""
        first, beyond = (bound.unsqueeze(1) for bound in self._on_device())
        return (positions >= first) & (positions < beyond) & valid

    def _on_device(self) -> tuple[Tensor, Tensor]:
        if self._tensors is None:
            start, end = (torch.from_numpy(bound).to(self._device) for bound in (self.start, self.end))
            self._tensors = start, end
        return self._tensors

    def at(self, positions: IntArray) -> BoolArray:
        """The same on the host for one position per row, [B] or [B, 1]."""
        return (positions >= self.start) & (positions < self.end)

    def steps_left(self, positions: IntArray) -> int:
        """How many positions further ``at`` stays what it is."""
        ahead = [bound[bound > positions] - np.broadcast_to(positions, bound.shape)[bound > positions]
                 for bound in (self.start, self.end)]  # fmt: skip
        return int(min((a.min() for a in ahead if a.size), default=_FAR)) - 1

    def of(self, rows: Tensor) -> _Window:
        """The windows of these rows; a row may come several times. Rows on a device are not brought to the host: the
        windows are then good for ``covers`` only."""
        if rows.device.type == "cpu":
            host = rows.numpy()
            return _Window(self.start[host], self.end[host], self._device)
        start, end = self._on_device()
        return _Window(self.start, self.end, self._device, (start[rows], end[rows]))


@dataclass
class _Clamps:
    window: _Window
    latents: ClampedLatents
    values: Tensor
    """[B, 1, c]."""
    reads_steered: Tensor
    """[B, 1, 1] bool: read after the adds."""
    any_reads_steered: bool

    def of(self, rows: Tensor) -> _Clamps:
        there = rows.to(self.values.device)
        picked = self.latents.of(rows), self.values[there], self.reads_steered[there]
        return _Clamps(self.window.of(rows), *picked, self.any_reads_steered)

    def change(self, h: Tensor, steered: Tensor, on: Tensor | None) -> Tensor:
        """The steered residual stream [B, T, d_model] with the clamps ``on`` [B, T, c] in effect; None: all of them."""
        read = torch.where(self.reads_steered, steered, h) if self.any_reads_steered else h
        activations = self.latents.activations(read)
        change = self.values.to(activations.dtype) - activations
        if on is None:
            return steered + self.latents.delta(read, change).to(h.dtype)
        delta = self.latents.delta(read, torch.where(on, change, 0))
        # `where`, not `*`: a run-time normalisation may leave NaN on padding, and 0 * NaN is NaN
        return torch.where(on.any(-1, keepdim=True), steered + delta.to(h.dtype), steered)


@dataclass
class _Step:
    """What a decoding step does, valid as long as no schedule begins or ends."""

    adds: list[Tensor]
    """[B, 1, d_model], 0 where a row's add is off; slots in which all are off are left out."""
    clamps: _Clamps | None
    """Of the rows in ``rows`` only, or of all; None: no clamp is on."""
    on: Tensor | None
    """Which of them are on, [B, 1, c]; None: all."""
    rows: Tensor | None
    """Rows with a clamp that is on, filled up; None: all rows. ``picked``: how many of them count."""
    picked: int
    counts: IntArray
    """Positions changed per row."""
    serial: int = field(init=False, default_factory=lambda: next(serials))


def _from_host(direction: Direction) -> Tensor:
    return torch.from_numpy(direction.vector.copy())


class LayerPlan:
    """All interventions of a batch at one decoder layer.

    ``counts`` accumulates, per row, the positions that ``apply`` really changed (long, [B]); the engine compares them
    (with ``stepped``, the same for decoding steps, on the host) with the schedules when a row ends, so steering that
    did not happen cannot go unnoticed. ``vector`` gives a direction as a float32 tensor [d_model]; default: from its
    array.
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
        self._device = device
        rows = len(requests)
        self.counts = torch.zeros(rows, dtype=torch.long, device=device)
        self.finite = torch.ones(rows, dtype=torch.bool, device=device)
        self.stepped: IntArray = np.zeros(rows, np.int64)
        self.last: Tensor | None = None
        """What left the layer in the last decoding step, [B, 1, d_model]; None if nothing was done to it."""
        self._prepared: _Step | None = None
        self._left = 0
        adds = [[i for i in r.interventions if isinstance(i, Add) and i.layer == layer] for r in requests]
        clamps = [[i for i in r.interventions if isinstance(i, Clamp) and i.layer == layer] for r in requests]
        self._adds = [self._add_slot(adds, k, vector) for k in range(max(map(len, adds)))]
        self._clamps: _Clamps | None = None
        if any(clamps):
            assert reader is not None  # the engine has refused such requests
            self._clamps = self._lay_out_clamps(clamps, reader, [r.clamp_reads == "steered" for r in requests])

    def _add_slot(self, adds: list[list[Add]], k: int, vector: Callable[[Direction], Tensor]) -> tuple[_Window, Tensor]:
        chosen = [row[k] if k < len(row) else None for row in adds]
        anyone = next(a for a in chosen if a is not None)  # where a row has no k-th add: 0 * its vector, nowhere
        vectors = torch.stack([vector((a or anyone).direction) for a in chosen]).to(self._device)
        boosts = torch.tensor([0.0 if a is None else a.boost for a in chosen], device=self._device)
        start, end = np.array([(0, 0) if a is None else _bounds(a.schedule) for a in chosen], np.int64).T
        return _Window(start, end, self._device), (boosts.unsqueeze(1) * vectors).unsqueeze(1)

    def _lay_out_clamps(self, clamps: list[list[Clamp]], reader: LatentReader, reads_steered: list[bool]) -> _Clamps:
        shape = len(clamps), max(map(len, clamps))
        latents, start, end = (np.zeros(shape, np.int64) for _ in range(3))  # numpy: a tensor takes ten times as long
        values = np.zeros(shape, np.float32)
        for row, wanted in enumerate(clamps):
            for k, clamp in enumerate(wanted):
                latents[row, k], values[row, k] = clamp.latent, clamp.value
                start[row, k], end[row, k] = _bounds(clamp.schedule)
            latents[row, len(wanted) :] = wanted[0].latent if wanted else next(c for row in clamps for c in row).latent
        return _Clamps(
            _Window(start, end, self._device),
            ClampedLatents(reader, torch.from_numpy(latents)),
            torch.from_numpy(values).to(self._device).unsqueeze(1),
            torch.tensor(reads_steered, device=self._device)[:, None, None],
            any(reads_steered),
        )

    # ---- any number of tokens per row

    def apply(self, h: Tensor, positions: Tensor, valid: Tensor) -> Tensor:
        """The steered residual stream.

        h: [B, T, d_model]; positions: [B, T] response positions (prompt negative); valid: [B, T], False on padding
        and on rows that have ended.
        """
        steered = h
        for window, vectors in self._adds:
            if window.unbounded and h.shape[1] == 1:  # rows that have ended change too; nobody reads them
                steered = steered + vectors.to(h.dtype)
                self.counts += valid[:, 0]
            else:
                on = window.covers(positions, valid)
                steered = steered + vectors.to(h.dtype) * on.unsqueeze(-1)
                self.counts += on.sum(1)
        if self._clamps is not None:
            on = self._clamps.window.covers(positions.unsqueeze(-1), valid.unsqueeze(-1))
            steered = self._clamps.change(h, steered, on)
            self.counts += on.sum((1, 2))
        self.finite &= (torch.isfinite(steered).all(-1) | ~valid).all(1)
        return steered

    def apply_tokens(self, h: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """The steered residual stream of a batch without padding, as engines with continuous batching hold it.

        h: [N, d_model], the tokens of all rows one after another; rows: [N] long, whose token each is; positions: [N]
        as for ``apply``.
        """
        tokens = self._of(rows)  # the same plan with one row per token
        steered = tokens.apply(h.unsqueeze(1), positions.unsqueeze(1), tokens.finite.clone().unsqueeze(1)).squeeze(1)
        self.counts.index_add_(0, rows, tokens.counts)
        broken = torch.zeros_like(self.counts).index_add_(0, rows, (~tokens.finite).long())
        self.finite &= broken == 0
        return steered

    def _of(self, rows: Tensor) -> LayerPlan:
        """The plan of these rows, nothing counted yet."""
        other = copy(self)
        other.counts = torch.zeros(len(rows), dtype=torch.long, device=self._device)
        other.finite = torch.ones(len(rows), dtype=torch.bool, device=self._device)
        other.stepped = np.zeros(len(rows), np.int64)
        other.last, other._prepared, other._left = None, None, 0
        other._adds = [(window.of(rows), vectors[rows.to(self._device)]) for window, vectors in self._adds]
        other._clamps = self._clamps and self._clamps.of(rows)
        return other

    # ---- decoding: one token per row, every row one position further at each step

    def keep(self, rows: Tensor) -> LayerPlan:
        """The plan of these rows (a tensor on the CPU), with what they have been through in decoding steps."""
        other = self._of(rows)
        other.stepped = self.stepped[rows.numpy()]
        return other

    def prepare(self, positions: IntArray) -> bool:
        """Say at which response positions [B] the coming step is; whether it changes anything at this layer."""
        if self._prepared is None or self._left == 0:
            windows = [(window, positions) for window, _ in self._adds]
            if self._clamps is not None:
                windows.append((self._clamps.window, positions[:, None]))
            self._left = 1 + min(window.steps_left(at) for window, at in windows)
            self._prepared = self._lay_out_step(positions)
        self._left -= 1
        self.last = None
        return bool(self._prepared.adds) or self._prepared.clamps is not None

    @property
    def serial(self) -> int:
        """Of what has been prepared: another number whenever a step does something else."""
        assert self._prepared is not None
        return self._prepared.serial

    @property
    def left(self) -> int:
        """For how many steps after the coming one it stays what it is."""
        return self._left

    def _lay_out_step(self, positions: IntArray) -> _Step:
        counts = np.zeros(len(positions), np.int64)
        adds = []
        for window, vectors in self._adds:
            on = window.at(positions)
            counts += on
            if on.all():
                adds.append(vectors)
            elif on.any():
                adds.append(vectors * self._there(on)[:, None, None])
        if self._clamps is None:
            return _Step(adds, None, None, None, 0, counts)
        clamped = self._clamps.window.at(positions[:, None])
        counts += clamped.sum(1)
        picked = np.flatnonzero(clamped.any(1))
        if not picked.size:
            return _Step(adds, None, None, None, 0, counts)
        if 2 * max(picked.size, MIN_ROWS) > len(positions):
            return _Step(adds, self._clamps, self._mask(clamped), None, 0, counts)
        filled = np.concatenate([picked, np.repeat(picked[:1], max(0, MIN_ROWS - picked.size))])
        clamps = self._clamps.of(torch.from_numpy(filled))
        return _Step(adds, clamps, self._mask(clamped[filled]), self._there(filled), picked.size, counts)

    def _mask(self, on: BoolArray) -> Tensor | None:
        """[B, 1, c] of [B, c]; None if all are."""
        return None if on.all() else self._there(on).unsqueeze(1)

    def _there(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def step(self, h: Tensor) -> Tensor:
        """The steered residual stream [B, 1, d_model] of the step prepared."""
        step = self._prepared
        assert step is not None
        steered = h
        for vectors in step.adds:
            steered = steered + vectors.to(h.dtype)
        if step.clamps is not None:
            if step.rows is None:
                steered = step.clamps.change(h, steered, step.on)
            else:
                changed = step.clamps.change(h[step.rows], steered[step.rows], step.on)[: step.picked]
                steered = steered.index_copy(0, step.rows[: step.picked], changed)
        self.last = steered
        return steered

    def moved(self) -> None:
        """The rows have gone on otherwise than by decoding steps."""
        self._prepared = None

    def commit(self) -> None:
        """Count the step, if it was taken."""
        if self.last is not None and self._prepared is not None:
            self.stepped += self._prepared.counts


def expected_positions(request: Request, layer: int, processed: int) -> int:
    """How many positions the plan of a layer must have changed for a request when the model has processed the
    prompt and ``processed`` response tokens."""
    first = -len(request.prompt_ids)
    return sum(i.schedule.count(first, processed) for i in request.interventions if i.layer == layer)
