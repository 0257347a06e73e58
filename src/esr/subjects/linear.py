"""Products with weights, by the fastest library at hand."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_exact(tensor: Tensor) -> bool:
    """Float32 on a CPU: where no bit of a row may depend on its neighbours, and where oneDNN is asked."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``: x [..., n] times the weight [m, n] transposed, plus the bias [m].

    In float32 on a CPU by oneDNN, unless a gradient is wanted: PyTorch takes MKL there, which leaves half of some
    processors idle (``docs/log.md``).
    """
    if _ONEDNN and is_exact(x) and is_exact(weight) and not torch.is_grad_enabled():
        if not (weight.is_contiguous() or weight.T.is_contiguous()):
            weight = weight.T.contiguous().T  # one that does not lie in one piece takes oneDNN a thousand times longer
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out
    return nn.functional.linear(x, weight, bias)


def use_linear(model: nn.Module) -> None:
    """Have those of the model's linear layers that lie on the CPU in float32 multiply this way; not those that somebody
    has given another ``forward``."""
    for module in model.modules():
        if type(module) is nn.Linear and is_exact(module.weight) and "forward" not in module.__dict__:
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(module: nn.Linear, input: Tensor) -> Tensor:
    return linear(input, module.weight, module.bias)
