"""Drawing the next tokens of a batch whose rows differ in seed, temperature, top-p and repetition penalty.

A row's noise depends on its own seed and step only: its uniforms are drawn once, from a generator of its own, and
step k inverts the cumulative distribution at the k-th. Neighbours in the batch cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from esr.steering.engine import Request


class Sampler:
    """State for one batch; rows in the order of ``requests``. ``drawn``: new tokens each row has already."""

    def __init__(
        self,
        requests: Sequence[Request],
        vocabulary: int,
        device: torch.device,
        drawn: Sequence[Sequence[int]] | None = None,
    ) -> None:
        samplings = [r.sampling for r in requests]
        columns = torch.tensor([(s.temperature, s.top_p, s.repetition_penalty) for s in samplings])
        self._any_greedy = any(s.temperature == 0 for s in samplings)
        self._any_sampled = any(s.temperature > 0 for s in samplings)
        self._any_top_p = any(s.top_p < 1 for s in samplings)
        self._temperature, self._top_p, self._penalty = columns.to(device).unsqueeze(-1).unbind(1)  # each [B, 1]
        self._greedy = self._temperature == 0
        self._divisor = torch.where(self._greedy, 1.0, self._temperature)
        # one more than needed: a row that has drawn its last token is drawn for once more, and not looked at
        steps = 1 + max(s.max_new_tokens for s in samplings) if self._any_sampled else 0
        self._uniforms = torch.stack([_uniforms(r, steps) for r in requests]).to(device)
        self._seen: Tensor | None = None
        if any(s.repetition_penalty != 1 for s in samplings):
            self._seen = torch.zeros(len(requests), vocabulary, dtype=torch.bool, device=device)
            for row, request in enumerate(requests):
                tokens = request.prefill_ids + tuple(drawn[row] if drawn else ())
                if request.sampling.penalty_over == "all":
                    tokens = request.prompt_ids + tokens
                self._seen[row, list(tokens)] = True

    def keep(self, rows: Tensor) -> Sampler:
        """The state of these rows (long, on the CPU)."""
        other = copy(self)
        rows = rows.to(self._temperature.device)
        for name in ("_temperature", "_top_p", "_penalty", "_greedy", "_divisor", "_uniforms", "_seen"):
            value = getattr(self, name)
            setattr(other, name, None if value is None else value[rows])
        return other

    def draw(self, logits: Tensor, step: int | Tensor) -> Tensor:
        """Token ids [B] for the step-th new token, one step for all or [B, 1] (long); logits [B, vocabulary]. Changes
        nothing: see ``saw``."""
        logits = logits.float()
        if self._seen is not None:
            penalised = torch.where(logits > 0, logits / self._penalty, logits * self._penalty)
            logits = torch.where(self._seen, penalised, logits)
        tokens = logits.argmax(-1) if self._any_greedy else None
        if self._any_sampled:
            sampled = self._sampled(logits, step)
            tokens = sampled if tokens is None else torch.where(self._greedy.squeeze(1), tokens, sampled)
        assert tokens is not None
        return tokens

    def saw(self, tokens: Tensor) -> None:
        """These tokens, [B], are each row's next: repetition penalties count them from now on."""
        if self._seen is not None:
            self._seen.scatter_(1, tokens.unsqueeze(1), True)

    def _sampled(self, logits: Tensor, step: int | Tensor) -> Tensor:
        probabilities = torch.softmax(logits / self._divisor, -1)
        if self._any_top_p:
            probabilities = _nucleus(probabilities, self._top_p)
        cumulative = probabilities.double().cumsum(-1)
        uniforms = self._uniforms[:, step, None] if isinstance(step, int) else self._uniforms.gather(1, step)
        point = uniforms * cumulative[:, -1:]
        # right=True: the first token whose cumulative probability exceeds the point, never one of probability 0
        return torch.searchsorted(cumulative, point, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


def _uniforms(request: Request, steps: int) -> Tensor:
    if request.sampling.temperature == 0:
        return torch.zeros(steps, dtype=torch.float64)
    generator = torch.Generator().manual_seed(request.seed)
    return torch.rand(steps, dtype=torch.float64, generator=generator)


def _nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Zero all but the smallest set of most likely tokens whose probability reaches top_p (Holtzman et al. 2020)."""
    ordered, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill((before >= top_p) & (top_p < 1), 0)
    return torch.zeros_like(probabilities).scatter_(-1, order, ordered)
