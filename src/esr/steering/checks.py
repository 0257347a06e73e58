"""What every engine refuses before it runs, and what it verifies afterwards; the same rules and words for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from esr.errors import SteeringError, UserError
from esr.steering.engine import Request
from esr.steering.interventions import Add, Clamp, Intervention
from esr.steering.plan import expected_positions
from esr.subjects.latents import check_latent
from esr.subjects.loading import Subject


def check_ids(requests: Sequence[Request]) -> None:
    """Raises UserError when two requests of one call have the same id."""
    twice = [id for id, n in Counter(r.id for r in requests).items() if n > 1]
    if twice:
        raise UserError("the requests of one call have distinct ids", f"{twice[0]} twice")


def check_request(subject: Subject, request: Request, context: int | None = None) -> None:
    """Raises UserError for a request that cannot run: too long, a token, layer, width or latent out of range.

    ``context``: most positions the engine holds, where that is fewer than the model was built for.
    """
    most = min((n for n in (subject.context, context) if n is not None), default=None)
    length = len(request.prompt_ids) + len(request.prefill_ids) + request.sampling.max_new_tokens
    if most is not None and length > most:
        raise UserError(
            f"prompt, prefill and new tokens fit into the model's context of {most} tokens",
            f"{len(request.prompt_ids)} + {len(request.prefill_ids)} + {request.sampling.max_new_tokens}"
            f" = {length} in request {request.id}",
            "Shorten the prompt or lower max_new_tokens",
        )
    vocabulary = subject.model.get_input_embeddings().num_embeddings
    for token in (*request.prompt_ids, *request.prefill_ids):
        if not 0 <= token < vocabulary:
            raise UserError(f"a token id lies in 0..{vocabulary - 1}", f"{token} in request {request.id}")
    check_interventions(subject, request.interventions)


def check_interventions(subject: Subject, interventions: Sequence[Intervention]) -> None:
    """Raises UserError for a layer, width or latent the subject does not have, or a latent clamped twice at once."""
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
            raise UserError("a latent is clamped once per position", f"latent {one.latent} at layer {one.layer} twice")


def check_span(request: Request, start: int, end: int) -> None:
    """Raises UserError unless start..end-1 are positions of the request's prompt and prefill."""
    length = len(request.prompt_ids) + len(request.prefill_ids)
    if not 0 <= start < end <= length:
        rule = f"a stretch to read is not empty and lies within the text's {length} tokens"
        raise UserError(rule, f"{start} to {end} of request {request.id}")


def check_counts(request: Request, changed: Mapping[int, int], processed: int) -> None:
    """Raises SteeringError unless exactly the scheduled positions changed.

    changed: {layer: positions changed}; processed: response tokens the model has processed.
    """
    for layer in {i.layer for i in request.interventions}:
        expected = expected_positions(request, layer, processed)
        if changed.get(layer, 0) != expected:
            raise SteeringError(
                f"Steering did not happen as scheduled in request {request.id}: at layer {layer}, "
                f"{changed.get(layer, 0)} positions changed, {expected} scheduled."
            )


def not_finite(request: Request, layer: str) -> SteeringError:
    """The error for a residual stream or logits that hold NaN or infinity; layer: a number or ``the last one``."""
    boosts = [f"{i.boost:g} on {i.direction.id}" for i in request.interventions if isinstance(i, Add)]
    return SteeringError(
        f"The residual stream is not finite in request {request.id} at layer {layer}, "
        f"boost {', '.join(boosts) or 'none'}. Lower the boost or use a wider dtype."
    )
