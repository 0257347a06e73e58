"""The Hugging Face engine: any causal LM, every row of a batch steered in its own way.

One decoding loop of our own on the library's model and static cache, because ``generate`` draws from one global
generator and cannot give each row its own noise. Requests are grouped so that a row's padding and cache length
follow from the row alone, and a batch on the CPU has at least ``_MIN_ROWS`` rows: with that, float32 logits do not
depend on the neighbours, bit for bit (tests/steering, measured), and a study that was killed and resumed in other
batches gives the same tokens. bf16 on a GPU makes no such promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import StaticCache

from esr.errors import UserError
from esr.steering.checks import check_counts, check_ids, check_interventions, check_request, check_span, not_finite
from esr.steering.engine import Request, Response, Sampling
from esr.steering.interventions import Intervention
from esr.steering.plan import LayerPlan
from esr.steering.sampling import Sampler
from esr.subjects.latents import Activity, check_latent
from esr.subjects.loading import Subject

_MIN_ROWS = 16  # below this, BLAS switches kernels with the number of rows and the last bits of the logits change
_PAD_TO = 16  # prompts are left-padded to a multiple of this many tokens; the cache has room for a multiple of new ones
_READ_TOKENS = 4096  # most tokens, padding included, that one forward pass reads


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
            while pending:
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

        plans = self._plans(rows)
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
                self._raise_not_finite(rows[broken_rows.index(True)], broken_rows.index(True), plans)
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

    def _plans(self, requests: Sequence[Request]) -> dict[int, LayerPlan]:
        layers = sorted({i.layer for r in requests for i in r.interventions})
        return {layer: LayerPlan(requests, layer, self.subject.reader, self._layer_device(layer)) for layer in layers}

    def _layer_device(self, layer: int) -> torch.device:
        return next(self.subject.layers[layer].parameters()).device

    def _finish(self, request: Request, new: list[int], stopped: bool, step: int, changed: dict[int, int]) -> Response:
        processed = len(request.prefill_ids) + step  # the last token drawn is never fed back
        check_counts(request, changed, processed)
        tokens = request.prefill_ids + tuple(new)
        text = self.subject.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Response(request.id, tokens, text, "stop" if stopped else "length", sum(changed.values()))

    @staticmethod
    def _raise_not_finite(request: Request, row: int, plans: dict[int, LayerPlan]) -> None:
        raise not_finite(request, next((str(k) for k, plan in plans.items() if not plan.finite[row]), "the last one"))

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
        with self._steered(plans, positions, valid):
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

    @contextmanager
    def _steered(self, plans: dict[int, LayerPlan], positions: Tensor, valid: Tensor) -> Iterator[None]:
        """Hooks live for one forward pass, so neither an exception nor a suspended generator leaves one behind."""

        def hook(plan: LayerPlan) -> Any:
            def steer(_module: Any, _args: Any, output: Any) -> Any:
                h = output[0] if isinstance(output, tuple) else output
                steered = plan.apply(h, positions.to(h.device), valid.to(h.device))
                return (steered, *output[1:]) if isinstance(output, tuple) else steered

            return steer

        handles = []
        try:
            for layer, plan in plans.items():
                handles.append(self.subject.layers[layer].register_forward_hook(hook(plan)))
            yield
        finally:
            for handle in handles:
                handle.remove()

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
        reader = self.subject.require_reader()
        for latent in latents:
            check_latent(latent, reader.d_sae)
        h = self.residual(token_ids, self.subject.read_layer, interventions, prompt_length=prompt_length)
        with torch.no_grad():
            activations = reader.activations(h, torch.tensor(list(latents), device=h.device))
        return np.asarray(activations.float().cpu().numpy(), dtype=np.float32)

    def residual(
        self,
        token_ids: Sequence[int],
        layer: int,
        interventions: Sequence[Intervention] = (),
        *,
        prompt_length: int | None = None,
    ) -> Tensor:
        """The residual stream [tokens, d_model] as it leaves ``layer``, teacher-forced under the interventions."""
        split = len(token_ids) if prompt_length is None else prompt_length
        request = Request("read", tuple(token_ids[:split]), tuple(interventions), prefill_ids=tuple(token_ids[split:]))
        return self._residuals([request], layer)[0]

    def activity(self, texts: Iterable[tuple[Request, int, int]]) -> Iterator[Activity]:
        """See ``Engine.activity``. Texts are read a few at a time, in batches that follow from the texts alone."""
        reader = self.subject.require_reader()
        for batch in _reading_batches(texts):
            for request, start, end in batch:
                check_span(request, start, end)
            h = self._residuals([request for request, _, _ in batch], self.subject.read_layer)
            for row, (_, start, end) in enumerate(batch):
                yield reader.activity(h[row, start:end])

    def max_activations(self, sequences: Iterable[tuple[Sequence[int], int, int]]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.max_activations``."""
        for activity in self.activity((Request("read", tuple(ids)), start, end) for ids, start, end in sequences):
            yield activity.maximum

    def _residuals(self, requests: Sequence[Request], layer: int) -> Tensor:
        """The residual stream [rows, longest, d_model] as it leaves ``layer``, over each request's prompt and prefill,
        teacher-forced under its interventions. Rows are padded on the right, where causal attention never looks."""
        if not 0 <= layer < self.subject.n_layers:
            raise UserError(f"a layer lies in 0..{self.subject.n_layers - 1}", layer)
        texts = [request.prompt_ids + request.prefill_ids for request in requests]
        longest = max(map(len, texts))
        if self.subject.context is not None and longest > self.subject.context:
            rule = f"a text fits into the model's context of {self.subject.context} tokens"
            raise UserError(rule, longest, "Shorten it")
        ids = torch.full((len(texts), longest), self._pad_id)
        valid = torch.zeros(len(texts), longest, dtype=torch.bool)
        positions = torch.arange(longest).repeat(len(texts), 1)
        for row, (request, text) in enumerate(zip(requests, texts, strict=True)):
            check_interventions(self.subject, request.interventions)
            ids[row, : len(text)] = torch.tensor(text)
            valid[row, : len(text)] = True
            positions[row] -= len(request.prompt_ids)
        device = self.subject.device
        plans = self._plans(requests)
        captured = self._capture(ids.to(device), layer, plans, positions.to(device), valid.to(device))
        finite = (torch.isfinite(captured).all(-1) | ~valid.to(captured.device)).all(1).tolist()
        for row, request in enumerate(requests):
            changed = {at: int(plan.counts[row]) for at, plan in plans.items()}
            check_counts(request, changed, len(request.prefill_ids))
            if not finite[row]:
                self._raise_not_finite(request, row, plans)
        return captured

    @torch.no_grad()
    def _capture(
        self, ids: Tensor, layer: int, plans: dict[int, LayerPlan], positions: Tensor, valid: Tensor
    ) -> Tensor:
        captured: list[Tensor] = []

        def keep(_module: Any, _args: Any, output: Any) -> None:
            captured.append(output[0] if isinstance(output, tuple) else output)

        with self._steered(plans, positions, valid):
            handle = self.subject.layers[layer].register_forward_hook(keep)  # after the plan's own hook
            try:
                self.subject.model(input_ids=ids, attention_mask=valid.long(), use_cache=False, logits_to_keep=1)
            finally:
                handle.remove()
        return captured[0]


def _reading_batches(texts: Iterable[tuple[Request, int, int]]) -> Iterator[list[tuple[Request, int, int]]]:
    """Neighbouring texts, as many as stay within ``_READ_TOKENS`` when padded to the longest; one at least."""
    batch: list[tuple[Request, int, int]] = []
    longest = 0
    for text in texts:
        longest = max(longest, len(text[0].prompt_ids) + len(text[0].prefill_ids))
        if batch and longest * (len(batch) + 1) > _READ_TOKENS:
            yield batch
            batch, longest = [], len(text[0].prompt_ids) + len(text[0].prefill_ids)
        batch.append(text)
    if batch:
        yield batch


def _padded_length(request: Request) -> int:
    return _padded(len(request.prompt_ids) + len(request.prefill_ids))


def _padded(tokens: int) -> int:
    return -(-tokens // _PAD_TO) * _PAD_TO


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
