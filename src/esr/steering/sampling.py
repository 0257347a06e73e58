"""Drawing the next tokens of a batch whose rows differ in seed, temperature, top-p and repetition penalty.

A row's noise depends on its own seed and step only: its uniforms are drawn once, from a generator of its own, and
step k inverts the cumulative distribution at the k-th. Neighbours in the batch cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from esr.steering.engine import Request


class Sampler:
    """State for one batch; rows in the order of ``requests``."""

    def __init__(self, requests: Sequence[Request], vocabulary: int, device: torch.device) -> None:
        samplings = [r.sampling for r in requests]
        columns = torch.tensor([(s.temperature, s.top_p, s.repetition_penalty) for s in samplings], device=device)
        self._temperature, self._top_p, self._penalty = columns.unsqueeze(-1).unbind(1)  # each [B, 1]
        self._any_sampled = any(s.temperature > 0 for s in samplings)
        self._any_top_p = any(s.top_p < 1 for s in samplings)
        steps = max(s.max_new_tokens for s in samplings)
        self._uniforms = torch.stack([_uniforms(r.seed, steps) for r in requests]).to(device)
        self._seen: Tensor | None = None
        if any(s.repetition_penalty != 1 for s in samplings):
            self._seen = torch.zeros(len(requests), vocabulary, dtype=torch.bool, device=device)
            for row, request in enumerate(requests):
                tokens = request.prefill_ids
                if request.sampling.penalty_over == "all":
                    tokens = request.prompt_ids + tokens
                self._seen[row, list(tokens)] = True

    def draw(self, logits: Tensor, step: int) -> Tensor:
        """Token ids [B] for the step-th new token; logits [B, vocabulary]."""
        logits = logits.float()
        if self._seen is not None:
            penalised = torch.where(logits > 0, logits / self._penalty, logits * self._penalty)
            logits = torch.where(self._seen, penalised, logits)
        tokens = logits.argmax(-1)
        if self._any_sampled:
            greedy = self._temperature == 0
            scaled = logits / torch.where(greedy, 1.0, self._temperature)
            probabilities = torch.softmax(scaled, -1)
            if self._any_top_p:
                probabilities = _nucleus(probabilities, self._top_p)
            cumulative = probabilities.double().cumsum(-1)
            point = self._uniforms[:, step : step + 1] * cumulative[:, -1:]
            # right=True: the first token whose cumulative probability exceeds the point, never one of probability 0
            sampled = torch.searchsorted(cumulative, point, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)
            tokens = torch.where(greedy.squeeze(1), tokens, sampled)
        if self._seen is not None:
            self._seen.scatter_(1, tokens.unsqueeze(1), True)
        return tokens


def _uniforms(seed: int, steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, dtype=torch.float64, generator=generator)


def _nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Zero all but the smallest set of most likely tokens whose probability reaches top_p (Holtzman et al. 2020)."""
    ordered, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill((before >= top_p) & (top_p < 1), 0)
    return torch.zeros_like(probabilities).scatter_(-1, order, ordered)
