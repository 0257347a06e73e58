"""The Hugging Face engine: any causal LM, every row of a batch steered in its own way.

One decoding loop of our own on the library's model and static cache, because ``generate`` draws from one global
generator and cannot give each row its own noise. Requests are grouped so that a row's padding and cache length
follow from the row alone, and a batch on the CPU has at least ``_MIN_ROWS`` rows: with that, float32 logits do not
depend on the neighbours, bit for bit (tests/steering, measured), and a study that was killed and resumed in other
batches gives the same tokens. bf16 on a GPU makes no such promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import StaticCache

from esr.errors import SteeringError, UserError
from esr.steering.engine import Request, Response, Sampling
from esr.steering.interventions import Add, Clamp, Intervention
from esr.steering.plan import LayerPlan, expected_positions
from esr.steering.sampling import Sampler
from esr.subjects.latents import check_latent
from esr.subjects.loading import Subject

_MIN_ROWS = 16  # below this, BLAS switches kernels with the number of rows and the last bits of the logits change
_PAD_TO = 16  # prompts are left-padded to a multiple of this many tokens


class HFEngine:
    """See ``esr.steering.engine.Engine``. ``batch_size``: most requests in flight; halved when memory runs out."""

    def __init__(self, subject: Subject, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise UserError("batch_size is at least 1", batch_size)
        self.subject = subject
        self.batch_size = batch_size
        pad = subject.tokenizer.pad_token_id
        self._pad_id = 0 if pad is None else int(pad)

    # ---- generating

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """See ``Engine.generate``. All requests are checked before the first one runs."""
        twice = [id for id, n in Counter(r.id for r in requests).items() if n > 1]
        if twice:
            raise UserError("the requests of one call have distinct ids", f"{twice[0]} twice")
        for request in requests:
            self.check(request)
        return self._generate(requests)

    def check(self, request: Request) -> None:
        """Raises UserError for a request that cannot run: too long, a layer, width or latent out of range."""
        subject = self.subject
        length = len(request.prompt_ids) + len(request.prefill_ids) + request.sampling.max_new_tokens
        if subject.context is not None and length > subject.context:
            raise UserError(
                f"prompt, prefill and new tokens fit into the model's context of {subject.context} tokens",
                f"{len(request.prompt_ids)} + {len(request.prefill_ids)} + {request.sampling.max_new_tokens}"
                f" = {length} in request {request.id}",
                "Shorten the prompt or lower max_new_tokens",
            )
        vocabulary = subject.model.get_input_embeddings().num_embeddings
        for token in (*request.prompt_ids, *request.prefill_ids):
            if not 0 <= token < vocabulary:
                raise UserError(f"a token id lies in 0..{vocabulary - 1}", f"{token} in request {request.id}")
        self._check_interventions(request.interventions)

    def _check_interventions(self, interventions: Sequence[Intervention]) -> None:
        subject = self.subject
        for i in interventions:
            if not 0 <= i.layer < subject.n_layers:
                raise UserError(f"a layer lies in 0..{subject.n_layers - 1}", i.layer)
            if isinstance(i, Add):
                width = i.direction.vector.shape[0]
                if width != subject.d_model:
                    raise UserError(
                        f"a direction has the model's width {subject.d_model}",
                        f"{width} for {i.direction.id}",
                    )
            else:
                check_latent(i.latent, subject.require_reader().d_sae)
        clamps = [i for i in interventions if isinstance(i, Clamp)]
        for one, other in combinations(clamps, 2):  # both would read the same h, and their changes add up
            if (one.latent, one.layer) == (other.latent, other.layer) and one.schedule.overlaps(other.schedule):
                raise UserError(
                    "a latent is clamped once per position", f"latent {one.latent} at layer {one.layer} twice"
                )

    def _generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        groups: dict[tuple[int, int], list[Request]] = {}
        for request in requests:
            groups.setdefault((_padded_length(request), request.sampling.max_new_tokens), []).append(request)
        for (length, steps), pending in sorted(groups.items()):
            while pending:
                batch = pending[: self.batch_size]
                finished: set[str] = set()
                running = self._decode(batch, length, steps)
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

    def _decode(self, requests: list[Request], length: int, steps: int) -> Iterator[Response]:
        """Run one batch to its end; ``length``: padded prompt and prefill, ``steps``: new tokens of every row."""
        device = self.subject.device
        rows = self._with_filler(requests)
        real = torch.tensor([row < len(requests) for row in range(len(rows))], device=device)
        ids = torch.full((len(rows), length), self._pad_id)
        mask = torch.zeros(len(rows), length + steps, dtype=torch.long)
        positions = torch.arange(length).repeat(len(rows), 1)
        for row, request in enumerate(rows):
            text = request.prompt_ids + request.prefill_ids
            ids[row, length - len(text) :] = torch.tensor(text)
            mask[row, length - len(text) :] = 1
            positions[row] -= length - len(request.prefill_ids)  # the first response token is position 0
        ids, mask, positions = ids.to(device), mask.to(device), positions.to(device)

        plans = self._plans(rows)
        sampler = Sampler(rows, self.subject.model.config.get_text_config().vocab_size, device)
        cache = StaticCache(config=self.subject.model.config, max_cache_len=length + steps)
        end_ids = torch.tensor(sorted(self.subject.end_ids), device=device)
        drawn = torch.zeros(len(rows), steps, dtype=torch.long, device=device)

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
            done = alive & (ended | (step + 1 == steps))
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
        _check_counts(request, changed, processed)
        tokens = request.prefill_ids + tuple(new)
        text = self.subject.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Response(request.id, tokens, text, "stop" if stopped else "length", sum(changed.values()))

    def _raise_not_finite(self, request: Request, row: int, plans: dict[int, LayerPlan]) -> None:
        layer = next((str(layer) for layer, plan in plans.items() if not plan.finite[row]), "the last one")
        boosts = [f"{i.boost:g} on {i.direction.id}" for i in request.interventions if isinstance(i, Add)]
        raise SteeringError(
            f"The residual stream is not finite in request {request.id} at layer {layer}, "
            f"boost {', '.join(boosts) or 'none'}. Lower the boost or use a wider dtype."
        )

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
        if not 0 <= layer < self.subject.n_layers:
            raise UserError(f"a layer lies in 0..{self.subject.n_layers - 1}", layer)
        if self.subject.context is not None and len(token_ids) > self.subject.context:
            rule = f"a text fits into the model's context of {self.subject.context} tokens"
            raise UserError(rule, len(token_ids), "Shorten it")
        self._check_interventions(interventions)
        split = len(token_ids) if prompt_length is None else prompt_length
        request = Request("read", tuple(token_ids[:split]), tuple(interventions), prefill_ids=tuple(token_ids[split:]))
        ids = torch.tensor([list(token_ids)])
        positions = torch.arange(len(token_ids)).unsqueeze(0) - split
        valid = torch.ones_like(ids, dtype=torch.bool)
        device = self.subject.device
        plans = self._plans([request])
        captured = self._capture(ids.to(device), layer, plans, positions.to(device), valid.to(device))[0]
        changed = {at: int(plan.counts[0]) for at, plan in plans.items()}
        _check_counts(request, changed, len(token_ids) - split)
        if not torch.isfinite(captured).all():
            self._raise_not_finite(request, 0, plans)
        return captured

    def max_activations(self, sequences: Iterable[tuple[Sequence[int], int, int]]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.max_activations``."""
        reader = self.subject.require_reader()
        for token_ids, start, end in sequences:
            h = self.residual(token_ids, self.subject.read_layer)[start:end]
            with torch.no_grad():
                top = torch.zeros(reader.d_sae, device=h.device)
                for chunk in torch.split(h, 1024):
                    top = torch.maximum(top, reader.encode(chunk).float().amax(0))
            yield top.cpu().numpy()

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
                self.subject.model(input_ids=ids, use_cache=False, logits_to_keep=1)
            finally:
                handle.remove()
        return captured[0]


def _padded_length(request: Request) -> int:
    length = len(request.prompt_ids) + len(request.prefill_ids)
    return -(-length // _PAD_TO) * _PAD_TO


def _check_counts(request: Request, changed: dict[int, int], processed: int) -> None:
    for layer in {i.layer for i in request.interventions}:
        expected = expected_positions(request, layer, processed)
        if changed.get(layer, 0) != expected:
            raise SteeringError(
                f"Steering did not happen as scheduled in request {request.id}: at layer {layer}, "
                f"{changed.get(layer, 0)} positions changed, {expected} scheduled."
            )


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
