"""The Hugging Face engine: any causal LM, every row of a batch steered in its own way.

One decoding loop of our own on the library's model, because ``generate`` draws from one global generator and cannot
give each row its own noise. Rows are started in cohorts, decoded together, and replaced when they end
(``esr.steering.batch``, which also says why a row's tokens do not depend on its neighbours).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esr.errors import UserError
from esr.steering.batch import Batch, padded_length
from esr.steering.checks import check_ids, check_request
from esr.steering.cohorts import Attention, CohortCache, attention_over
from esr.steering.divergence import divergence
from esr.steering.engine import Request, Response
from esr.steering.graphs import Record
from esr.steering.interventions import Intervention
from esr.steering.memory import fitting_rows, is_out_of_memory
from esr.steering.reading import TextReader
from esr.steering.stopping import stop
from esr.subjects.latents import Activity
from esr.subjects.linear import use_linear
from esr.subjects.loading import Subject

_MOST_TOKENS = 16384  # of one forward pass over prompts, padding included
_REFILL = {"cpu": 2}
"""Rows that ended are replaced when they are one in so many of the batch; one in four on other devices. A start costs a
forward pass and makes one more cohort to attend over, which on a CPU costs more than a fuller batch saves."""


class HFEngine:
    """See ``esr.steering.engine.Engine``.

    ``batch_size``: most requests in flight; None: as many as fit into the free memory, which ``sharing`` engines share.
    Halved when memory runs out.
    ``record``: how decoding steps are captured as graphs (``esr.steering.graphs.cuda_graphs``); None: not at all.
    """

    def __init__(
        self, subject: Subject, batch_size: int | None = None, record: Record | None = None, *, sharing: int = 1
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UserError("batch_size is at least 1", batch_size)
        if len(subject.layers) != subject.n_layers:
            raise UserError("the hf engine runs a subject loaded with its decoder weights", "one without")
        self.subject = subject
        self.batch_size = batch_size
        self._record, self._sharing = record, sharing
        pad = subject.tokenizer.pad_token_id
        self._pad_id = 0 if pad is None else int(pad)
        self._texts = TextReader(subject)
        use_linear(subject.model)

    # ---- generating

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """See ``Engine.generate``. All requests are checked before the first one runs."""
        Attention(self.subject.model)  # refuses what it cannot run
        check_ids(requests)
        for request in requests:
            self.check(request)
        return self._generate(requests)

    def check(self, request: Request) -> None:
        """Raises UserError for a request that cannot run: too long, a layer, width or latent out of range."""
        check_request(self.subject, request)

    def about(self) -> dict[str, str]:
        """See ``Engine.about``."""
        about = {"engine": "hf", "device": str(self.subject.device)}
        return about if self._record is None else about | {"cuda_graphs": "on"}

    def close(self) -> None:
        """Nothing to end: the subject holds the weights."""

    def _generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        limit = self.batch_size or fitting_rows(self.subject, requests, sharing=self._sharing)
        refill = _REFILL.get(self.subject.device.type, 4)
        waiting = _Waiting(requests)
        batch = Batch(self.subject, self._forward, self._pad_id, self._record)
        while len(batch) or (waiting and not stop.asked):
            group: list[Request] = []
            finished: list[Response] | None = None
            try:
                free = limit - len(batch)
                if waiting and not stop.asked and (not len(batch) or free >= min(len(waiting), -(-limit // refill))):
                    group = waiting.take(max(1, free))
                    finished = batch.admit(group)
                else:
                    finished = batch.step()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if finished is None:  # not in the handler, where the error still holds what the step had made
                limit = self._halve(len(batch) + len(group))
                batch.retreat(limit)
            given_up = batch.taken_back()
            if given_up and finished is not None:  # there was no memory to move rows together
                limit = self.batch_size = max(1, len(given_up) // 2)
            waiting.put_back([*(group if finished is None else ()), *given_up])
            yield from finished or ()

    def _halve(self, rows: int) -> int:
        if rows == 1:
            raise UserError(
                "one request fits into memory",
                "out of memory at batch size 1",
                "Lower max_new_tokens or use a smaller dtype",
            )
        self.batch_size = rows // 2
        if self.subject.device.type == "cuda":
            torch.cuda.empty_cache()
        return self.batch_size

    @torch.no_grad()
    def _forward(self, ids: Tensor, places: Tensor, cache: CohortCache, hooks: AbstractContextManager[None]) -> Tensor:
        """Logits of the last position, [B, vocabulary]; ids and places (positions in the text): [B, T]."""
        with hooks, attention_over(cache):
            out = self.subject.model(
                input_ids=ids, position_ids=places, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
        cache.check()
        logits: Tensor = out.logits[:, -1]
        return logits.to(self.subject.device)

    # ---- reading

    def read(
        self,
        token_ids: Sequence[int],
        latents: Sequence[int],
        interventions: Sequence[Intervention] = (),
        *,
        prompt_length: int | None = None,
    ) -> NDArray[np.float32]:
        """See ``Engine.read``."""
        return self._texts.read(token_ids, latents, interventions, prompt_length=prompt_length)

    def readings(self, requests: Iterable[Request], latents: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.readings``."""
        return self._texts.readings(requests, latents)

    def activity(self, texts: Iterable[tuple[Request, int, int]]) -> Iterator[Activity]:
        """See ``Engine.activity``."""
        return self._texts.activity(texts)

    def max_activations(self, sequences: Iterable[tuple[Sequence[int], int, int]]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.max_activations``."""
        return self._texts.max_activations(sequences)

    def divergences(
        self, texts: Iterable[tuple[Request, Sequence[tuple[Intervention, ...]]]]
    ) -> Iterator[NDArray[np.float64]]:
        """See ``Engine.divergences``."""
        return (divergence(self.subject, request, sets) for request, sets in texts)

    def residual(
        self,
        token_ids: Sequence[int],
        layer: int,
        interventions: Sequence[Intervention] = (),
        *,
        prompt_length: int | None = None,
    ) -> Tensor:
        """See ``TextReader.residual``."""
        return self._texts.residual(token_ids, layer, interventions, prompt_length=prompt_length)


class _Waiting:
    """Requests not started yet, by padded length; the longest go first, so that the last rows in flight are short."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._groups: dict[int, list[Request]] = {}
        self.put_back(requests)

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def put_back(self, requests: Sequence[Request]) -> None:
        """To the front of their groups."""
        for request in reversed(requests):
            self._groups.setdefault(padded_length(request), []).insert(0, request)

    def take(self, most: int) -> list[Request]:
        """The next requests of one padded length."""
        length = max(self._groups)
        group = self._groups[length]
        size = min(most, max(1, _MOST_TOKENS // length))
        taken, rest = group[:size], group[size:]
        self._groups[length] = rest
        if not rest:
            del self._groups[length]
        return taken
