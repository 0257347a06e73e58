"""Products with weights, by the fastest library at hand."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``: x [..., n] times the weight [m, n] transposed, plus the bias [m].

    In float32 on a CPU by oneDNN, unless a gradient is wanted: PyTorch takes MKL there, which leaves half of some
    processors idle (``docs/log.md``).
    """
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_grad_enabled()
    if _ONEDNN and plain:
        if not (weight.is_contiguous() or weight.T.is_contiguous()):
            weight = weight.T.contiguous().T  # one that does not lie in one piece takes oneDNN a thousand times longer
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out
    return nn.functional.linear(x, weight, bias)


def use_linear(model: nn.Module) -> None:
    """Have those of the model's linear layers that lie on the CPU in float32 multiply this way; not those that somebody
    has given another ``forward``."""
    for module in model.modules():
        if type(module) is not nn.Linear or "forward" in module.__dict__:
            continue
        if module.weight.device.type == "cpu" and module.weight.dtype == torch.float32:
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(module: nn.Linear, input: Tensor) -> Tensor:
    return linear(input, module.weight, module.bias)
