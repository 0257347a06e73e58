"""How far steering moves what a model would say next, read from given texts: no generation, no judge.

A text (prompt and response) is run once as it is and once under each set of interventions. At each position that
predicts a response token the next-token distributions p (plain) and q (steered), both at temperature 1, are compared:

    kl      sum p log(p / q), in nats
    tv      sum |p - q| / 2, total variation, 0..1
    drop    log p - log q of the token that follows in the text, in nats: how much less likely the text has become

and averaged over the positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esr.errors import UserError
from esr.steering.checks import check_counts, check_interventions
from esr.steering.engine import Request
from esr.steering.hooks import broken, plans_for, steered
from esr.steering.interventions import Intervention
from esr.subjects.loading import Subject

MEASURES = ("kl", "tv", "drop")
MOST_POSITIONS = 64
"""Positions compared per text, evenly spread over the response."""
MOST_TOKENS = 2048  # of one forward pass, unless one text alone is longer
MOST_NUMBERS = 2**25  # next-token probabilities held at once


def check_divergence(subject: Subject, request: Request, sets: Sequence[tuple[Intervention, ...]]) -> None:
    """Raises UserError for an empty response, one beyond the context, and interventions the subject cannot run."""
    length = len(request.prompt_ids) + len(request.prefill_ids)
    if not request.prefill_ids:
        raise UserError("a divergence is read over a response to a prompt", "0 response tokens")
    if subject.context is not None and length > subject.context:
        raise UserError(f"a text fits into the model's context of {subject.context} tokens", length, "Shorten it")
    for own in sets:
        check_interventions(subject, own)


def compared(request: Request) -> tuple[int, ...]:
    """The positions of the text, rising, whose next-token distributions are compared."""
    prompt, response = len(request.prompt_ids), len(request.prefill_ids)
    n = min(MOST_POSITIONS, response)
    return tuple(np.unique(np.linspace(prompt - 1, prompt + response - 2, n).round().astype(int)).tolist())


def divergence(subject: Subject, request: Request, sets: Sequence[tuple[Intervention, ...]]) -> NDArray[np.float64]:
    """How far each set of interventions moves the next-token distributions over a request's prefill.

    Returns float64 [sets, measures], the measures in the order of ``MEASURES``; the request's own interventions play no
    part. Batches follow from the arguments alone, so the same call gives the same numbers. Raises UserError as
    ``check_divergence``; SteeringError when the positions changed are not those scheduled.
    """
    check_divergence(subject, request, sets)
    text, places = request.prompt_ids + request.prefill_ids, compared(request)
    keep, following = torch.tensor(places), torch.tensor(text)[torch.tensor(places) + 1]
    vocabulary = subject.model.config.get_text_config().vocab_size
    rows = max(1, min(MOST_TOKENS // len(text), MOST_NUMBERS // (len(places) * vocabulary)))
    plain = _log_probabilities(subject, [replace(request, interventions=())], keep)[0]
    found = []
    for start in range(0, len(sets), rows):
        batch = [replace(request, interventions=own) for own in sets[start : start + rows]]
        for moved in _log_probabilities(subject, batch, keep):
            found.append(measures(plain, moved, following.to(moved.device)).mean(0).tolist())
    return np.array(found).reshape(len(sets), len(MEASURES))


def measures(plain: Tensor, moved: Tensor, following: Tensor) -> Tensor:
    """The measures at every position, float64 [positions, measures].

    plain, moved: log next-token probabilities, [positions, vocabulary]; following: the text's next token at each.
    """
    p, q = plain.exp(), moved.exp()
    kl = (p * (plain - moved)).sum(-1)
    tv = (p - q).abs().sum(-1) / 2
    drop = (plain - moved).gather(-1, following[:, None]).squeeze(-1)
    return torch.stack([kl, tv, drop], -1).double()


@torch.no_grad()
def _log_probabilities(subject: Subject, requests: Sequence[Request], keep: Tensor) -> Tensor:
    """Log next-token probabilities [rows, positions, vocabulary] at the positions ``keep`` of one text."""
    first = requests[0]
    text = torch.tensor(first.prompt_ids + first.prefill_ids).repeat(len(requests), 1)
    positions = torch.arange(text.shape[1]).repeat(len(requests), 1) - len(first.prompt_ids)
    valid = torch.ones_like(text, dtype=torch.bool)
    plans = plans_for(subject, requests)
    with steered(subject, plans, positions.to(subject.device), valid.to(subject.device)):
        out = subject.model(input_ids=text.to(subject.device), use_cache=False, logits_to_keep=keep.to(subject.device))
    logits: Tensor = out.logits.float()
    finite = torch.isfinite(logits).all(-1).all(-1).tolist()
    for row, request in enumerate(requests):
        check_counts(request, {at: int(plan.counts[row]) for at, plan in plans.items()}, len(request.prefill_ids))
        if not finite[row]:
            raise broken(request, row, plans)
    return torch.log_softmax(logits, dim=-1)
