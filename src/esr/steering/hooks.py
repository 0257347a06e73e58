"""Steering a transformers model from the outside: forward hooks on decoder layers that live for one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from esr.errors import SteeringError
from esr.steering.checks import not_finite
from esr.steering.engine import Request
from esr.steering.plan import LayerPlan
from esr.subjects.loading import Subject


def plans_for(subject: Subject, requests: Sequence[Request]) -> dict[int, LayerPlan]:
    """The plan of every layer at which one of the requests intervenes, on that layer's device."""
    layers = sorted({i.layer for r in requests for i in r.interventions})
    return {layer: LayerPlan(requests, layer, subject.reader, layer_device(subject, layer)) for layer in layers}


def layer_device(subject: Subject, layer: int) -> torch.device:
    """Where a decoder layer lies."""
    return next(subject.layers[layer].parameters()).device


def residual_of(output: Any) -> Tensor:
    """The residual stream in what a decoder layer returns: itself, or first in a tuple (transformers 4)."""
    h: Tensor = output[0] if isinstance(output, tuple) else output
    return h


@contextmanager
def hooked(layer: nn.Module, hook: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """A forward hook while the block lasts: neither an exception nor a suspended generator leaves it behind."""
    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def steered(
    subject: Subject, plans: Mapping[int, LayerPlan], positions: Tensor, valid: Tensor
) -> AbstractContextManager[None]:
    """Apply the plans for one forward pass; ``positions`` and ``valid`` as for ``LayerPlan.apply``."""
    return _changed(subject, plans, lambda plan, h: plan.apply(h, positions.to(h.device), valid.to(h.device)))


def stepping(
    subject: Subject,
    plans: Mapping[int, LayerPlan],
    change: Callable[[LayerPlan, Tensor], Tensor] = lambda plan, h: plan.step(h),
) -> AbstractContextManager[None]:
    """Apply the plans for one decoding step, for which they have been prepared."""
    return _changed(subject, plans, change)


@contextmanager
def _changed(
    subject: Subject, plans: Mapping[int, LayerPlan], change: Callable[[LayerPlan, Tensor], Tensor]
) -> Iterator[None]:
    """Put what ``change`` gives in place of the residual stream at every layer that has a plan."""

    def hook(plan: LayerPlan) -> Callable[[nn.Module, Any, Any], Any]:
        def steer(_module: nn.Module, _args: Any, output: Any) -> Any:
            changed = change(plan, residual_of(output))
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return steer

    handles = []
    try:
        for layer, plan in plans.items():
            handles.append(subject.layers[layer].register_forward_hook(hook(plan)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def broken(request: Request, row: int, plans: Mapping[int, LayerPlan]) -> SteeringError:
    """The error for a row that is not finite, naming the first steered layer at which it was not."""
    return not_finite(request, next((str(at) for at, plan in plans.items() if not plan.finite[row]), "the last one"))
