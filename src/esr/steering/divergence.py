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


def check_divergence(subject: Subject) -> None:
    """Raises UserError for a subject whose weights are elsewhere, as under the vllm backend or with replicas."""
    if len(subject.layers) != subject.n_layers:
        raise elsewhere()


def elsewhere() -> UserError:
    """What is said where the model's weights are not in this process."""
    return UserError(
        "the surrogate reads next-token distributions of the model in this process",
        "a subject without its decoder weights (vllm, or replicas)",
        'Run with [engine] backend = "hf" and without replicas until thresholds are found (replicas may do the rest),'
        " or set [calibration] surrogate = false",
    )


def divergence(
    subject: Subject,
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    interventions: Sequence[tuple[Intervention, ...]],
) -> NDArray[np.float64]:
    """How far each set of interventions moves the next-token distributions over one response.

    Returns float64 [sets, measures], the measures in the order of ``MEASURES``. Batches follow from the arguments
    alone, so the same call gives the same numbers. Raises UserError for an empty response, one beyond the context, and
    interventions the subject cannot run; SteeringError when the positions changed are not those scheduled.
    """
    check_divergence(subject)
    text = (*prompt_ids, *response_ids)
    if not prompt_ids or not response_ids:
        raise UserError("a divergence is read over a response to a prompt", f"{len(response_ids)} response tokens")
    if subject.context is not None and len(text) > subject.context:
        raise UserError(f"a text fits into the model's context of {subject.context} tokens", len(text), "Shorten it")
    for own in interventions:
        check_interventions(subject, own)
    n = min(MOST_POSITIONS, len(response_ids))
    places = np.unique(np.linspace(len(prompt_ids) - 1, len(text) - 2, n).round().astype(int))
    keep, following = torch.from_numpy(places), torch.tensor(text)[places + 1]
    vocabulary = subject.model.config.get_text_config().vocab_size
    rows = max(1, min(MOST_TOKENS // len(text), MOST_NUMBERS // (len(places) * vocabulary)))
    plain = _log_probabilities(subject, [_request(prompt_ids, response_ids, ())], keep)[0]
    found = []
    for start in range(0, len(interventions), rows):
        batch = [_request(prompt_ids, response_ids, own) for own in interventions[start : start + rows]]
        for moved in _log_probabilities(subject, batch, keep):
            found.append(_measures(plain, moved, following.to(moved.device)))
    return np.array(found).reshape(len(interventions), len(MEASURES))


def _measures(plain: Tensor, moved: Tensor, following: Tensor) -> list[float]:
    p, q = plain.exp(), moved.exp()
    kl = (p * (plain - moved)).sum(-1)
    tv = (p - q).abs().sum(-1) / 2
    drop = (plain - moved).gather(-1, following[:, None])
    return [float(values.double().mean()) for values in (kl, tv, drop)]


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


def _request(prompt: Sequence[int], response: Sequence[int], interventions: tuple[Intervention, ...]) -> Request:
    return Request("divergence", tuple(prompt), interventions, prefill_ids=tuple(response))
