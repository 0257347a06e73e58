"""The rows in flight: started in cohorts, decoded together, taken out when they end.

On the CPU a forward pass has at least ``MIN_ROWS`` rows (filler makes up for the missing ones), a prompt is padded to a
multiple of ``PAD_TO`` tokens of its own, and a row attends over its own cohort's columns, which begin and end alike in
memory (``cohorts``): with that, float32 logits do not depend on the neighbours, bit for bit (tests/steering, measured),
and a study that was killed and resumed in other batches gives the same tokens. bf16 on a GPU makes no such promise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esr.steering.checks import check_counts
from esr.steering.cohorts import Attention, Cohort, CohortCache
from esr.steering.engine import Request, Response, Sampling
from esr.steering.graphs import GraphedSteps, Record
from esr.steering.hooks import broken, plans_for, steered, stepping
from esr.steering.memory import is_out_of_memory
from esr.steering.plan import LayerPlan, serials
from esr.steering.rows import MIN_ROWS
from esr.steering.sampling import Sampler
from esr.subjects.loading import Subject

PAD_TO = 16  # prompts are left-padded to a multiple of this many tokens

Forward = Callable[[Tensor, Tensor, CohortCache, AbstractContextManager[None]], Tensor]
"""(token ids [B, T], their positions in the text [B, T], cache, hooks) -> logits of the last token, [B, vocabulary]."""


def padded_length(request: Request) -> int:
    """Columns that the request's prompt and prefill take."""
    return -(-(len(request.prompt_ids) + len(request.prefill_ids)) // PAD_TO) * PAD_TO


@dataclass
class _Row:
    request: Request
    new: list[int] = field(default_factory=list)
    """Tokens drawn, the end token included."""
    changed: dict[int, int] = field(default_factory=dict)
    """{layer: positions changed}, without those of the plans in use."""
    live: bool = True
    limit: int = 0
    """Most new tokens."""

    def __post_init__(self) -> None:
        self.limit = self.request.sampling.max_new_tokens


@dataclass
class Layout:
    """What the decoding steps need of the rows in flight, filler last; unchanged until rows come or go."""

    plans: dict[int, LayerPlan]
    sampler: Sampler
    positions: NDArray[np.int64]
    """Response position of each row's coming token, [B]."""
    last: Tensor
    """Token drawn last, [B]."""
    places: Tensor
    """Its position in the text, [B, 1]."""
    steps: Tensor
    """How many new tokens there are, [B, 1]."""
    alive: Tensor
    """[B, 1], 1 or 0: rows that have ended, and filler, stay where they are."""
    serial: int = field(init=False, default_factory=lambda: next(serials))

    def advance(self, tokens: Tensor) -> None:
        """The step has been taken."""
        for plan in self.plans.values():
            plan.commit()
        self.sampler.saw(tokens)
        self.last = tokens
        self.positions += 1
        self.places += self.alive
        self.steps += self.alive

    def keep(self, rows: Sequence[int]) -> Layout:
        """The same for these rows, all of them alive."""
        host = torch.tensor(list(rows))
        there = host.to(self.last.device)
        return Layout(
            {layer: plan.keep(host) for layer, plan in self.plans.items()},
            self.sampler.keep(host),
            self.positions[host.numpy()],
            self.last[there],
            self.places[there],
            self.steps[there],
            torch.ones_like(self.alive[there]),
        )


class Batch:
    """See the module. ``forward`` runs the model; ``pad_id``: the token that filler and padding consist of; ``record``:
    how decoding steps are captured as graphs, None: not at all."""

    def __init__(self, subject: Subject, forward: Forward, pad_id: int, record: Record | None = None) -> None:
        self._subject, self._forward, self._pad_id = subject, forward, pad_id
        self._device = subject.device
        self._attention = Attention(subject.model)
        self._graphs = None if record is None else GraphedSteps(subject, self._attention, forward, record)
        self._vocabulary = int(self._attention.config.vocab_size)
        self._min_rows = MIN_ROWS if self._device.type == "cpu" else 1
        self._dead_share = 8 if self._device.type == "cpu" else 4  # taking rows out costs a copy; dead ones, their work
        self._cohorts: list[Cohort] = []
        self._rows: list[_Row] = []  # cohort after cohort
        self._layout: Layout | None = None
        self._given_up: list[Request] = []

    def __len__(self) -> int:
        return sum(row.live for row in self._rows)

    @torch.no_grad()
    def admit(self, requests: Sequence[Request]) -> list[Response]:
        """Start requests of one padded length; those that end with their first token are returned. When it raises,
        nothing has changed."""
        length = padded_length(requests[0])
        padding = [length - len(r.prompt_ids) - len(r.prefill_ids) for r in requests]
        cohort = Cohort(padding, length, max(r.sampling.max_new_tokens for r in requests))
        padded = [*requests, *self._filler(len(requests))]
        ids = torch.full((len(padded), length), self._pad_id)
        valid = torch.zeros(len(padded), length, dtype=torch.bool)
        positions = torch.arange(length).repeat(len(padded), 1)
        for at, request in enumerate(requests):
            ids[at, padding[at] :] = torch.tensor(request.prompt_ids + request.prefill_ids)
            valid[at, padding[at] :] = True
            positions[at] -= length - len(request.prefill_ids)  # the first response token is position 0
        places = (valid.cumsum(1) - 1).clamp(min=0)
        ids, places, positions, valid = (t.to(self._device) for t in (ids, places, positions, valid))
        plans = plans_for(self._subject, padded)
        logits = self._run(ids, places, [cohort], steered(self._subject, plans, positions, valid))
        tokens = Sampler(padded, self._vocabulary, self._device).draw(logits, 0)
        rows = [_Row(request) for request in requests]
        for plan in plans.values():
            for row, count in zip(rows, plan.counts.tolist(), strict=False):
                row.changed[plan.layer] = count
        finite = torch.isfinite(logits).all(-1)
        for plan in plans.values():
            finite &= plan.finite.to(finite.device)
        for at, fine in enumerate(finite.tolist()[: len(requests)]):
            if not fine:
                raise broken(requests[at], at, plans)
        cohort.filled = length
        self._settle()
        self._cohorts.append(cohort)
        self._rows += rows
        finished = self._take(rows, tokens.tolist(), {})
        self._tidy()
        return finished

    @torch.no_grad()
    def step(self) -> list[Response]:
        """One more token for every row; the responses that have ended. When it raises, nothing has changed."""
        layout = self._layout = self._layout or self._lay_out()
        active = {layer: plan for layer, plan in layout.plans.items() if plan.prepare(layout.positions)}
        logits = self._logits(layout, active)
        tokens = layout.sampler.draw(logits, layout.steps)
        sums = logits.float().sum(-1)  # finite unless some logit is not, or a sum of finite ones overflows
        drawn, totals = torch.stack([tokens.double(), sums.double()]).tolist()
        if self._graphs is not None:
            self._graphs.verify()
        if not np.isfinite(totals[: len(self._rows)]).all():
            self._check_finite(logits, layout.plans)
        for cohort in self._cohorts:
            cohort.filled += 1
        layout.advance(tokens)
        finished = self._take(self._rows, [int(token) for token in drawn], layout.plans)
        if finished:
            self._tidy()
        return finished

    def retreat(self, rows: int) -> None:
        """Give up the rows started last until at most so many are in flight."""
        if self._graphs is not None:
            self._graphs.forget()
        for row in [row for row in self._rows if row.live][rows:]:
            row.live = False
            self._given_up.append(row.request)
        self._tidy(at_once=True)

    def taken_back(self) -> list[Request]:
        """The requests of rows given up since this was asked: by ``retreat``, or because there was no memory to move
        rows together. They are to start anew."""
        requests, self._given_up = self._given_up, []
        return requests

    # ---- what happens between two steps

    def _run(
        self, ids: Tensor, places: Tensor, cohorts: Sequence[Cohort], hooks: AbstractContextManager[None]
    ) -> Tensor:
        return self._forward(ids, places, CohortCache(cohorts, self._attention), hooks)

    def _logits(self, layout: Layout, active: Mapping[int, LayerPlan]) -> Tensor:
        """Of the coming step, [B, vocabulary]; ``active``: the plans that change something in it."""

        def ordinary() -> Tensor:
            hooks = stepping(self._subject, active)
            return self._run(layout.last.unsqueeze(1), layout.places, self._cohorts, hooks)

        return ordinary() if self._graphs is None else self._graphs.logits(layout, self._cohorts, active, ordinary)

    def _take(self, rows: Sequence[_Row], tokens: Sequence[int], plans: Mapping[int, LayerPlan]) -> list[Response]:
        """Give every live row its token; the responses of the rows that have ended with it. ``plans``: those in use."""
        finished, ends = [], self._subject.end_ids
        for at, (row, token) in enumerate(zip(rows, tokens, strict=False)):
            if row.live:
                row.new.append(token)
                if token in ends or len(row.new) == row.limit:
                    row.live = False
                    for layer, plan in plans.items():
                        row.changed[layer] = row.changed.get(layer, 0) + int(plan.stepped[at])
                    finished.append(self._finish(row))
        return finished

    def _finish(self, row: _Row) -> Response:
        request, stopped = row.request, row.new[-1] in self._subject.end_ids
        processed = len(request.prefill_ids) + len(row.new) - 1  # the last token drawn is never fed back
        check_counts(request, row.changed, processed)
        tokens = request.prefill_ids + tuple(row.new[:-1] if stopped else row.new)
        text = self._subject.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Response(request.id, tokens, text, "stop" if stopped else "length", sum(row.changed.values()))

    def _check_finite(self, logits: Tensor, plans: Mapping[int, LayerPlan]) -> None:
        """Raises SteeringError for a live row whose logits are not finite."""
        for at, (row, fine) in enumerate(zip(self._rows, torch.isfinite(logits).all(-1).tolist(), strict=False)):
            if row.live and not fine:
                for plan in plans.values():
                    if plan.last is not None:
                        plan.finite[at] = torch.isfinite(plan.last[at]).all()
                raise broken(row.request, at, plans)

    def _filler(self, rows: int) -> list[Request]:
        return [Request("", (self._pad_id,), sampling=Sampling(temperature=0))] * (self._min_rows - rows)

    def _tidy(self, at_once: bool = False) -> None:
        """Take rows that have ended out, when there are enough of them. All are given up when there is no memory to
        move the others together."""
        try:
            self._move_together(at_once)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._given_up += [row.request for row in self._rows if row.live]
            self._cohorts, self._rows, self._layout = [], [], None

    def _move_together(self, at_once: bool) -> None:
        dead = sum(not row.live for row in self._rows)
        if dead < len(self._rows) and not at_once and dead * self._dead_share < len(self._rows):
            if self._layout is not None:
                alive = [row.live for row in self._rows]
                self._layout.alive[: len(alive), 0] = torch.tensor(alive, device=self._device).long()
            return
        if dead == 0:
            return
        kept: list[int] = []
        cohorts, at = [], 0
        for cohort in self._cohorts:
            size = len(cohort)
            live = [k for k in range(size) if self._rows[at + k].live]
            if live:
                kept += [at + k for k in (cohort.keep(live) if len(live) < size else live)]
                cohorts.append(cohort)
            at += size
        if self._layout is not None and len(kept) >= self._min_rows:
            self._layout = self._layout.keep(kept)
        else:
            self._settle()
        self._rows, self._cohorts = [self._rows[k] for k in kept], cohorts

    def _settle(self) -> None:
        """Write down what the plans in use have counted, and have the next step lay out the rows anew."""
        if self._layout is not None:
            for layer, plan in self._layout.plans.items():
                for row, count in zip(self._rows, plan.stepped.tolist(), strict=False):
                    row.changed[layer] = row.changed.get(layer, 0) + count
        self._layout = None

    def _lay_out(self) -> Layout:
        """The layout of the rows as they are now."""
        filler = self._filler(len(self._rows))
        requests = [*(row.request for row in self._rows), *filler]
        new = [*(row.new for row in self._rows), *([0] for _ in filler)]
        positions = [len(r.prefill_ids) + len(n) - 1 for r, n in zip(requests, new, strict=True)]
        places = [len(r.prompt_ids) + at for r, at in zip(requests, positions, strict=True)]
        steps = [*(len(row.new) for row in self._rows), *(0 for _ in filler)]
        alive = [*(int(row.live) for row in self._rows), *(0 for _ in filler)]
        columns = torch.tensor([[n[-1] for n in new], places, steps, alive], device=self._device)
        last, *rest = columns.unbind(0)
        return Layout(
            plans_for(self._subject, requests),
            Sampler(requests, self._vocabulary, self._device, new),
            np.array(positions),
            last,
            *(column.unsqueeze(1) for column in rest),
        )
