"""What a worker knows of the requests it runs, and what it does to their residual streams.

A step of vLLM processes the next tokens of some requests, one stretch each, one after another without padding: a whole
prompt, a chunk of one, or a single token. ``begin`` lays the interventions of those requests out for the stretches,
``steer`` applies them at each layer, ``end`` closes the step. Nothing here imports vLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esr.errors import SteeringError
from esr.steering.divergence import measures
from esr.steering.engine import Request
from esr.steering.interventions import Direction
from esr.steering.plan import LayerPlan
from esr.steering.vllm.wire import (
    Comparing,
    Reading,
    Report,
    pack_activity,
    pack_latents,
    pack_measures,
    unpack_request,
)
from esr.subjects.latents import Activity, LatentReader
from esr.subjects.tiles import activities


@dataclass
class _Row:
    """One request."""

    request: Request
    wanted: Reading | Comparing | None
    processed: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    broken: str = ""
    skipped: str = ""
    latents: list[Tensor] = field(default_factory=list)
    activity: Activity | None = None
    compared: list[Tensor] = field(default_factory=list)
    """[positions, vocabulary] log probabilities of a text's plain request, [positions, measures] of the others."""

    @property
    def reading(self) -> Reading | None:
        """What to read of it."""
        return self.wanted if isinstance(self.wanted, Reading) else None

    def restart(self) -> None:
        """Forget what was done: a preempted request is computed again from its first token."""
        self.processed, self.counts, self.latents, self.activity = 0, dict.fromkeys(self.counts, 0), [], None
        self.compared = []


@dataclass(frozen=True)
class _Step:
    """Where the tokens of a step belong."""

    rows: list[_Row]
    starts: list[int]
    lengths: list[int]
    tokens: int
    row_of: Tensor | None
    """[tokens] long: the row of each token; None when every row has one token: a decoding step."""
    positions: Tensor | None
    """[tokens] response positions, the prompt's negative; None in a decoding step, which the plans are prepared for."""
    changed: frozenset[int]
    """Layers at which the step changes something."""


class RequestTable:
    """The requests of one worker.

    ``layers``: the decoder layers this worker holds, by their number in the whole model. ``reads``: whether it answers
    readings, which one worker of a tensor-parallel group does for all.
    """

    def __init__(
        self, layers: Sequence[int], device: torch.device, reader: LatentReader | None, read_layer: int, reads: bool
    ) -> None:
        self.layers = frozenset(layers)
        self._device = device
        self._reader = reader
        self._read_layer = read_layer
        self._reads = reads and read_layer in self.layers
        self._directions: dict[str, Direction] = {}
        self._vectors: dict[str, Tensor] = {}
        self._rows: dict[str, _Row] = {}  # by vLLM's id
        self._ids: dict[int, str] = {}  # by the engine's key
        self._plain: dict[int, Tensor] = {}  # by the number of the text
        self._order: tuple[str, ...] = ()
        self._plans: dict[int, LayerPlan] = {}
        self._finite = torch.ones(0, dtype=torch.bool, device=device)
        self._step: _Step | None = None
        self._last: list[_Row] = []
        self._awaits_logits = False
        self._reads_now = self._compares_now = False

    def register(self, vectors: dict[str, bytes]) -> None:
        """Keep directions, {digest: float32 bytes}, here and on the device."""
        for digest, data in vectors.items():
            direction = Direction(digest, np.frombuffer(data, np.float32))
            self._directions[direction.digest] = direction
            self._vectors[direction.digest] = torch.from_numpy(direction.vector.copy()).to(self._device)

    def add(self, id: str, packed: dict[str, Any], token_ids: Sequence[int]) -> None:
        """A request vLLM is about to run for the first time, or again from its start."""
        if id in self._rows:
            return
        request, wanted = unpack_request(packed, token_ids, self._directions)
        layers = {i.layer for i in request.interventions} & self.layers
        self._rows[id] = _Row(request, wanted, counts=dict.fromkeys(layers, 0))
        self._ids[packed["key"]] = id

    # ---- one step

    def begin(self, ids: Sequence[str], starts: Sequence[int], lengths: Sequence[int]) -> None:
        """The stretches of the coming step, in the order of the batch: tokens starts[k] .. starts[k] + lengths[k] - 1
        of request ids[k]."""
        unknown = next((id for id in ids if id not in self._rows), None)
        if unknown is not None:
            raise SteeringError(f"vLLM runs a request this engine did not send: {unknown}")
        rows = [self._rows[id] for id in ids]
        order = tuple(ids)
        moved = [row for row, start in zip(rows, starts, strict=True) if row.processed != start]
        if moved or order != self._order:
            self._collect()
            for row, start in zip(rows, starts, strict=True):
                if start == 0 and row.processed:
                    row.restart()
                elif start != row.processed:
                    row.skipped = f"tokens {row.processed} to {start - 1} were not computed here"
            self._order, self._plans = order, self._plan(rows)
            self._finite = torch.ones(len(rows), dtype=torch.bool, device=self._device)
        self._reads_now = self._reads and any(row.reading is not None for row in rows)
        self._compares_now = any(isinstance(row.wanted, Comparing) for row in rows)
        self._step = self._lay_out(rows, list(starts), list(lengths))
        self._last, self._awaits_logits = rows, True

    def _plan(self, rows: Sequence[_Row]) -> dict[int, LayerPlan]:
        requests = [row.request for row in rows]
        layers = sorted({i.layer for r in requests for i in r.interventions} & self.layers)
        return {layer: LayerPlan(requests, layer, self._reader, self._device, self._vector) for layer in layers}

    def _vector(self, direction: Direction) -> Tensor:
        return self._vectors[direction.id]

    def _lay_out(self, rows: list[_Row], starts: list[int], lengths: list[int]) -> _Step:
        first = np.array([s - len(row.request.prompt_ids) for row, s in zip(rows, starts, strict=True)])
        counts = np.array(lengths)
        tokens = int(counts.sum())
        if tokens == len(rows):
            changed = frozenset(layer for layer, plan in self._plans.items() if plan.prepare(first))
            return _Step(rows, starts, lengths, tokens, None, None, changed)
        for plan in self._plans.values():
            plan.moved()
        index = np.repeat(np.arange(len(rows)), counts)
        offsets = np.arange(tokens) - np.repeat(np.cumsum(counts) - counts, counts)
        row_of, positions = (torch.from_numpy(a).to(self._device) for a in (index, first[index] + offsets))
        return _Step(rows, starts, lengths, tokens, row_of, positions, frozenset(self._plans))

    def wants(self, layer: int) -> bool:
        """Whether this step changes or reads the residual stream at ``layer``."""
        if self._step is None:
            return False
        return layer in self._step.changed or (self._reads_now and layer == self._read_layer)

    @torch.inference_mode()
    def steer(self, layer: int, h: Tensor) -> Tensor | None:
        """The steered residual stream as it leaves ``layer``, or None where nothing changes.

        h: [N, d_model]; N may exceed the step's tokens, and what lies beyond is left alone.
        """
        step = self._step
        if step is None or not self.wants(layer):
            return None
        plan = self._plans[layer] if layer in step.changed else None
        out = steered = h[: step.tokens]
        if plan is not None:
            if step.row_of is None or step.positions is None:
                steered = plan.step(out.unsqueeze(1)).squeeze(1)
                plan.commit()
                plan.finite &= _finite_rows(steered)
            else:
                steered = plan.apply_tokens(out, step.row_of, step.positions)
        if self._reads_now and layer == self._read_layer:
            self._read(step, steered)
        if plan is None:
            return None
        return steered if step.tokens == len(h) else torch.cat([steered, h[step.tokens :]])

    def _read(self, step: _Step, h: Tensor) -> None:
        at = 0
        for row, start, length in zip(step.rows, step.starts, step.lengths, strict=True):
            stretch, at = h[at : at + length], at + length
            if row.reading is None:
                continue
            assert self._reader is not None  # the engine has refused such requests
            if not torch.isfinite(stretch).all():
                row.broken = row.broken or str(self._read_layer)
            elif row.reading.latents is not None:
                latents = torch.tensor(row.reading.latents, dtype=torch.long, device=h.device)
                row.latents.append(self._reader.activations(stretch, latents).float().cpu())
            else:
                stretch = stretch[max(0, row.reading.start - start) : max(0, row.reading.end - start)]
                if len(stretch):
                    (activity,) = activities(self._reader, [stretch])
                    row.activity = activity if row.activity is None else row.activity + activity

    @torch.inference_mode()
    def compare(self, hidden: Tensor, logits_of: Callable[[Tensor], Tensor | None]) -> None:
        """Compare next-token distributions where requests ask for it.

        hidden: [N, d_model], what the step's forward pass gave; ``logits_of`` makes logits [n, vocabulary] of some of
        it, or None on workers that do not have them. Every worker calls it for the same positions: tensor-parallel ones
        make the logits together.
        """
        step, at = self._step, 0
        if step is None or not self._compares_now:
            return
        for k, (row, start, length) in enumerate(zip(step.rows, step.starts, step.lengths, strict=True)):
            stretch, at = hidden[at : at + length], at + length
            if not isinstance(row.wanted, Comparing):
                continue
            places = [place for place in row.wanted.places if start <= place < start + length]
            logits = logits_of(stretch[[place - start for place in places]]) if places else None
            if logits is None:
                continue
            self._finite[k] &= torch.isfinite(logits).all()
            found = torch.log_softmax(logits.float(), dim=-1)
            if not row.wanted.plain:
                done = sum(map(len, row.compared))
                text = row.request.prompt_ids + row.request.prefill_ids
                following = torch.tensor([text[place + 1] for place in places], device=found.device)
                found = measures(self._plain[row.wanted.text][done : done + len(places)], found, following)
            row.compared.append(found)

    def forget(self, text: int) -> None:
        """Drop a text's plain distributions."""
        self._plain.pop(text, None)

    def logits(self, logits: Tensor | None) -> None:
        """Look at a step's logits, [requests, vocabulary]; None on workers that do not have them."""
        if not self._awaits_logits or logits is None:
            return
        self._awaits_logits = False
        if len(logits) != len(self._last):
            raise SteeringError(f"vLLM gave {len(logits)} rows of logits for {len(self._last)} requests")
        self._finite &= _finite_rows(logits)

    def end(self) -> None:
        """The step's forward pass is over."""
        if self._step is not None:
            for row, start, length in zip(self._step.rows, self._step.starts, self._step.lengths, strict=True):
                row.processed = start + length
        self._step = None

    # ---- reporting

    @torch.inference_mode()  # as vLLM runs its model: a tensor made there can be changed there only
    def take(self, keys: Sequence[int]) -> list[list[Any]]:
        """Packed reports of requests that are finished or given up, in the order of the keys, which are then
        forgotten; an empty list for one that never ran here."""
        self._collect()
        rows = [self._rows.pop(self._ids.pop(key), None) if key in self._ids else None for key in keys]
        return [[] if row is None else self._report(row).packed() for row in rows]

    def _report(self, row: _Row) -> Report:
        data: list[bytes] = []
        if row.activity is not None:
            data = pack_activity(row.activity)
        elif row.latents:
            data = pack_latents(torch.cat(row.latents).numpy())
        elif row.compared and isinstance(row.wanted, Comparing):
            compared = torch.cat(row.compared)
            if row.wanted.plain:
                self._plain[row.wanted.text] = compared
            else:
                data = pack_measures(compared.mean(0).cpu().numpy())
        return Report(row.processed, row.counts, row.broken, row.skipped, data)

    def _collect(self) -> None:
        """Move what the device counted into the rows."""
        rows = [self._rows.get(id) for id in self._order]
        for layer, plan in self._plans.items():
            counts = (plan.counts.cpu().numpy() + plan.stepped).tolist()
            for row, count, finite in zip(rows, counts, plan.finite.tolist(), strict=True):
                if row is not None:
                    if layer in row.counts:
                        row.counts[layer] += count
                    row.broken = row.broken or ("" if finite else str(layer))
            plan.counts.zero_()
            plan.stepped[:] = 0
        for row, finite in zip(rows, self._finite.tolist(), strict=True):
            if row is not None and not finite:
                row.broken = row.broken or "the last one"


def _finite_rows(x: Tensor) -> Tensor:
    """Which rows of x [N, n] hold no NaN and no infinity, [N] bool.

    On a CPU by their sums, which are finite only then and cost a tenth; a sum that is not may also have overflowed, and
    then every number is looked at. On a GPU that question would make the step wait.
    """
    if x.device.type == "cpu":
        sums = torch.isfinite(x.sum(-1, dtype=torch.float32))
        if bool(sums.all()):
            return sums
    return torch.isfinite(x).all(-1)
