"""Where a causal language model keeps its decoder layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from esr.errors import UserError


def decoder_layers(model: Any) -> list[nn.Module]:
    """The decoder layers in order; layer i's output is the residual stream ``hidden_states[i + 1]``.

    (The last entry of ``hidden_states`` is taken after the final norm; the layer's output is before it.)
    They are the outermost ``ModuleList`` of the model's decoder with as many members as the configuration
    says.

    Raises UserError if there is no such list or more than one.
    """
    return list(_module_list(model))


def drop_layers(model: Any) -> None:
    """Free the decoder layers of a model of which only embedding, final norm and unembedding are needed. Raises
    UserError as ``decoder_layers``."""
    del _module_list(model)[:]


def _module_list(model: Any) -> nn.ModuleList:
    n_layers = int(model.config.get_text_config(decoder=True).num_hidden_layers)
    decoder: nn.Module = model.get_decoder()
    found = [
        (name, module)
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    outermost = [f for f in found if f[0].count(".") == min(name.count(".") for name, _ in found)]
    if len(outermost) != 1:
        raise UserError(
            f"a decoder holds its {n_layers} layers in one module list",
            f"{len(outermost)} such lists in {type(model).__name__}",
            "This model class is not supported",
        )
    return outermost[0][1]


def check_layer(name: str, layer: int, n_layers: int) -> int:
    """The layer, if the model has it. Raises UserError otherwise."""
    if not 0 <= layer < n_layers:
        raise UserError(f"{name} lies in 0..{n_layers - 1} for this model", layer)
    return layer
