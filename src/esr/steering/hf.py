"""The Hugging Face engine: any causal LM, every row of a batch steered in its own way.

One decoding loop of our own on the library's model and static cache, because ``generate`` draws from one global
generator and cannot give each row its own noise. Requests are grouped so that a row's padding and cache length
follow from the row alone, and a batch on the CPU has at least ``_MIN_ROWS`` rows: with that, float32 logits do not
depend on the neighbours, bit for bit (tests/steering, measured), and a study that was killed and resumed in other
batches gives the same tokens. bf16 on a GPU makes no such promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import StaticCache

from esr.errors import UserError
from esr.steering.checks import check_counts, check_ids, check_request
from esr.steering.engine import Request, Response, Sampling
from esr.steering.hooks import broken, plans_for, steered
from esr.steering.interventions import Intervention
from esr.steering.plan import LayerPlan
from esr.steering.reading import TextReader
from esr.steering.sampling import Sampler
from esr.steering.stopping import stop
from esr.subjects.latents import Activity
from esr.subjects.loading import Subject

_MIN_ROWS = 16  # below this, BLAS switches kernels with the number of rows and the last bits of the logits change
_PAD_TO = 16  # prompts are left-padded to a multiple of this many tokens; the cache has room for a multiple of new ones


class HFEngine:
    """See ``esr.steering.engine.Engine``. ``batch_size``: most requests in flight; halved when memory runs out."""

    def __init__(self, subject: Subject, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise UserError("batch_size is at least 1", batch_size)
        if len(subject.layers) != subject.n_layers:
            raise UserError("the hf engine runs a subject loaded with its decoder weights", "one without")
        self.subject = subject
        self.batch_size = batch_size
        pad = subject.tokenizer.pad_token_id
        self._pad_id = 0 if pad is None else int(pad)
        self._texts = TextReader(subject)

    # ---- generating

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """See ``Engine.generate``. All requests are checked before the first one runs."""
        check_ids(requests)
        for request in requests:
            self.check(request)
        return self._generate(requests)

    def check(self, request: Request) -> None:
        """Raises UserError for a request that cannot run: too long, a layer, width or latent out of range."""
        check_request(self.subject, request)

    def _generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        groups: dict[tuple[int, int], list[Request]] = {}
        for request in requests:
            groups.setdefault((_padded_length(request), _padded(request.sampling.max_new_tokens)), []).append(request)
        for (length, room), pending in sorted(groups.items()):
            while pending and not stop.asked:
                batch = pending[: self.batch_size]
                finished: set[str] = set()
                running = self._decode(batch, length, room)
                while True:
                    try:
                        response = next(running, None)
                    except (RuntimeError, MemoryError) as error:
                        if not _out_of_memory(error):
                            raise
                        self._shrink(len(batch))
                        break
                    if response is None:
                        break
                    finished.add(response.id)
                    yield response
                pending = [r for r in pending if r.id not in finished]

    def _shrink(self, rows: int) -> None:
        if rows == 1:
            raise UserError(
                "one request fits into memory",
                "out of memory at batch size 1",
                "Lower max_new_tokens or use a smaller dtype",
            )
        self.batch_size = rows // 2
        if self.subject.device.type == "cuda":
            torch.cuda.empty_cache()

    def _decode(self, requests: list[Request], length: int, room: int) -> Iterator[Response]:
        """Run one batch to its end; ``length``: padded prompt and prefill, ``room``: for new tokens, in every row."""
        device = self.subject.device
        rows = self._with_filler(requests)
        limits = torch.tensor([r.sampling.max_new_tokens for r in rows], device=device)
        steps = max(r.sampling.max_new_tokens for r in requests)
        real = torch.tensor([row < len(requests) for row in range(len(rows))], device=device)
        ids = torch.full((len(rows), length), self._pad_id)
        mask = torch.zeros(len(rows), length + room, dtype=torch.long)
        positions = torch.arange(length).repeat(len(rows), 1)
        for row, request in enumerate(rows):
            text = request.prompt_ids + request.prefill_ids
            ids[row, length - len(text) :] = torch.tensor(text)
            mask[row, length - len(text) :] = 1
            positions[row] -= length - len(request.prefill_ids)  # the first response token is position 0
        ids, mask, positions = ids.to(device), mask.to(device), positions.to(device)

        plans = plans_for(self.subject, rows)
        sampler = Sampler(rows, self.subject.model.config.get_text_config().vocab_size, device)
        cache = StaticCache(config=self.subject.model.config, max_cache_len=length + room)
        end_ids = torch.tensor(sorted(self.subject.end_ids), device=device)
        drawn = torch.zeros(len(rows), room, dtype=torch.long, device=device)

        alive = real.clone()
        token_positions = (mask[:, :length].cumsum(1) - 1).clamp(min=0)
        valid = mask[:, :length].bool() & real.unsqueeze(1)
        for step in range(steps):
            logits = self._forward(ids, mask, token_positions, cache, plans, positions, valid)
            tokens = sampler.draw(logits, step)
            drawn[:, step] = tokens
            ended = torch.isin(tokens, end_ids)
            finite = torch.isfinite(logits).all(-1)
            for plan in plans.values():
                finite &= plan.finite
            done = alive & (ended | (step + 1 >= limits))
            done_rows, broken_rows = torch.stack([done, alive & ~finite]).tolist()
            if any(broken_rows):
                raise broken(rows[broken_rows.index(True)], broken_rows.index(True), plans)
            if any(done_rows):
                counts = {layer: plan.counts.tolist() for layer, plan in plans.items()}
                stopped = ended.tolist()
                for row in (r for r, is_done in enumerate(done_rows) if is_done):
                    new = drawn[row, : step + (not stopped[row])].tolist()
                    changed = {layer: per_row[row] for layer, per_row in counts.items()}
                    yield self._finish(rows[row], new, stopped[row], step, changed)
            alive = alive & ~done
            if not alive.any():
                return
            ids, valid = tokens.unsqueeze(1), alive.unsqueeze(1)
            token_positions, positions = token_positions[:, -1:] + 1, positions[:, -1:] + 1

    def _with_filler(self, requests: list[Request]) -> list[Request]:
        if self.subject.device.type != "cpu" or len(requests) >= _MIN_ROWS:
            return requests
        filler = Request("", (self._pad_id,), sampling=Sampling(temperature=0))
        return requests + [filler] * (_MIN_ROWS - len(requests))

    def _finish(self, request: Request, new: list[int], stopped: bool, step: int, changed: dict[int, int]) -> Response:
        processed = len(request.prefill_ids) + step  # the last token drawn is never fed back
        check_counts(request, changed, processed)
        tokens = request.prefill_ids + tuple(new)
        text = self.subject.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Response(request.id, tokens, text, "stop" if stopped else "length", sum(changed.values()))

    @torch.no_grad()
    def _forward(
        self,
        ids: Tensor,
        mask: Tensor,
        token_positions: Tensor,
        cache: Any,
        plans: dict[int, LayerPlan],
        positions: Tensor,
        valid: Tensor,
    ) -> Tensor:
        """Logits of the last position, [B, vocabulary]."""
        with steered(self.subject, plans, positions, valid):
            out = self.subject.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=token_positions,
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=1,
            )
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


def _padded_length(request: Request) -> int:
    return _padded(len(request.prompt_ids) + len(request.prefill_ids))


def _padded(tokens: int) -> int:
    return -(-tokens // _PAD_TO) * _PAD_TO


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
