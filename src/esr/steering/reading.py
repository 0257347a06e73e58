"""Reading given texts: one forward pass that ends at the layer read, under each text's own interventions.

Texts are taken a few at a time and grouped by their own padded length, so that on the CPU in float32 a text's residual
stream does not depend on what it is read with, bit for bit; the padding is on the right, where causal attention never
looks. Memory follows from the sizes below, not from the number of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esr.errors import UserError
from esr.steering.checks import check_counts, check_interventions, check_span
from esr.steering.engine import Request, text_request
from esr.steering.hooks import broken, hooked, plans_for, residual_of, steered
from esr.steering.interventions import Intervention
from esr.subjects.latents import Activity, check_latent
from esr.subjects.loading import Subject
from esr.subjects.tiles import activities

AHEAD = 64  # most texts taken before the first of them is given back
MOST_TOKENS = 2048  # of one forward pass, padding included, unless one text alone is longer
PAD_TO = 16  # a text is padded to a multiple of this many tokens, its own

Span = tuple[Request, int, int]
"""A text (prompt and prefill) and the positions to read: start..end-1."""


class _ReachedError(Exception):
    """The layer to read has been computed: what comes after it is not needed."""


class TextReader:
    """The reading half of the Hugging Face engine; see ``esr.steering.engine.Engine`` for the methods it shares."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

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
        reader = self.subject.require_reader()
        for latent in latents:
            check_latent(latent, reader.d_sae)
        wanted = torch.tensor(list(latents))
        remaining = iter(requests)
        while texts := list(islice(remaining, AHEAD)):
            found: dict[int, NDArray[np.float32]] = {}
            for places in _batches(texts):
                residuals = self.residuals([texts[i] for i in places], self.subject.read_layer)
                for place, h in zip(places, residuals, strict=True):
                    found[place] = reader.bounded_activations(h, wanted).float().cpu().numpy()
            yield from (found[place] for place in range(len(texts)))

    def activity(self, texts: Iterable[Span]) -> Iterator[Activity]:
        """See ``Engine.activity``."""
        reader = self.subject.require_reader()
        remaining = iter(texts)
        while spans := list(islice(remaining, AHEAD)):
            for span in spans:
                check_span(*span)
            found: dict[int, Activity] = {}
            for places in _batches([request for request, _, _ in spans]):
                residuals = self.residuals([spans[i][0] for i in places], self.subject.read_layer)
                stretches = [h[spans[i][1] : spans[i][2]] for i, h in zip(places, residuals, strict=True)]
                found |= zip(places, activities(reader, stretches), strict=True)
            yield from (found[place] for place in range(len(spans)))

    def max_activations(self, sequences: Iterable[tuple[Sequence[int], int, int]]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.max_activations``."""
        for activity in self.activity((Request("read", tuple(ids)), start, end) for ids, start, end in sequences):
            yield activity.maximum

    def residual(
        self,
        token_ids: Sequence[int],
        layer: int,
        interventions: Sequence[Intervention] = (),
        *,
        prompt_length: int | None = None,
    ) -> Tensor:
        """The residual stream [tokens, d_model] as it leaves ``layer``, teacher-forced under the interventions."""
        return self.residuals([text_request(token_ids, interventions, prompt_length)], layer)[0]

    def residuals(self, requests: Sequence[Request], layer: int) -> list[Tensor]:
        """For each request the residual stream [tokens, d_model] as it leaves ``layer``, over its prompt and prefill,
        teacher-forced under its interventions; those of later layers change nothing that is read and are left out."""
        subject = self.subject
        if not 0 <= layer < subject.n_layers:
            raise UserError(f"a layer lies in 0..{subject.n_layers - 1}", layer)
        for request in requests:
            check_interventions(subject, request.interventions)
            if subject.context is not None and _length(request) > subject.context:
                rule = f"a text fits into the model's context of {subject.context} tokens"
                raise UserError(rule, _length(request), "Shorten it")
        requests = [replace(r, interventions=tuple(i for i in r.interventions if i.layer <= layer)) for r in requests]
        padded = max(map(_padded, requests))
        ids = torch.zeros(len(requests), padded, dtype=torch.long)
        valid = torch.zeros(len(requests), padded, dtype=torch.bool)
        positions = torch.arange(padded).repeat(len(requests), 1)
        for row, request in enumerate(requests):
            text = request.prompt_ids + request.prefill_ids
            ids[row, : len(text)] = torch.tensor(text)
            valid[row, : len(text)] = True
            positions[row] -= len(request.prompt_ids)
        plans = plans_for(subject, requests)
        with steered(subject, plans, positions.to(subject.device), valid.to(subject.device)):
            captured = self._until(layer, ids.to(subject.device))
        finite = (torch.isfinite(captured).all(-1) | ~valid.to(captured.device)).all(1).tolist()
        for row, request in enumerate(requests):
            changed = {at: int(plan.counts[row]) for at, plan in plans.items()}
            check_counts(request, changed, len(request.prefill_ids))
            if not finite[row]:
                raise broken(request, row, plans)
        return [h[: _length(request)] for h, request in zip(captured, requests, strict=True)]

    @torch.no_grad()
    def _until(self, layer: int, ids: Tensor) -> Tensor:
        """What leaves ``layer``, [rows, tokens, d_model]; no later layer is computed.

        No mask is given: with one, the library chooses its kernel by whether any row has padding, and a row's last bits
        would depend on its neighbours.
        """
        captured: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            captured.append(residual_of(output))
            raise _ReachedError

        with hooked(self.subject.layers[layer], keep), suppress(_ReachedError):  # called after the plan's own hook
            self.subject.model(input_ids=ids, use_cache=False, logits_to_keep=1)
        return captured[0]


def _batches(requests: Sequence[Request]) -> Iterator[list[int]]:
    """Places of texts of one padded length, as many as stay within ``MOST_TOKENS``; one at least."""
    groups: dict[int, list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(_padded(request), []).append(place)
    for padded, places in groups.items():
        rows = max(1, MOST_TOKENS // padded)
        yield from (places[i : i + rows] for i in range(0, len(places), rows))


def _padded(request: Request) -> int:
    return -(-_length(request) // PAD_TO) * PAD_TO


def _length(request: Request) -> int:
    return len(request.prompt_ids) + len(request.prefill_ids)
