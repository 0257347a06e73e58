"""The lower layers of a model by themselves: as much of it as it takes to read the residual stream at one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from esr.errors import UserError
from esr.subjects.layers import decoder_layers
from esr.subjects.loading import load_config, load_model, model_device
from esr.subjects.spec import SubjectSpec


@dataclass(frozen=True)
class LowerLayers:
    """Embedding and decoder layers 0 to ``layer``."""

    model: Any
    layer: int

    @torch.no_grad()
    def residual(self, ids: Sequence[int]) -> Tensor:
        """The residual stream [tokens, d_model], float32, as it leaves ``layer``, unsteered."""
        captured: list[Tensor] = []

        def keep(_module: Any, _args: Any, output: Any) -> None:
            captured.append(output[0] if isinstance(output, tuple) else output)

        handle = decoder_layers(self.model)[self.layer].register_forward_hook(keep)
        try:
            device = self.model.get_input_embeddings().weight.device
            self.model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False, logits_to_keep=1)
        finally:
            handle.remove()
        return captured[0][0].float()


def load_lower_layers(spec: SubjectSpec, layer: int) -> LowerLayers:
    """Load the layers up to ``layer`` (0-based) and leave the others on the disk. An adapter is left out.

    Raises UserError for a model that cannot be loaded or whose layers are not found.
    """
    part = spec.model_copy(update={"adapter": None})
    model = load_model(part, model_device(spec), load_config(spec), layer + 1)
    if len(decoder_layers(model)) != layer + 1:
        raise UserError("a model can be loaded without its upper layers", spec.model)
    return LowerLayers(model, layer)


def empty_model(config: Any, dtype: torch.dtype) -> Any:
    """A model of this configuration without its numbers, on the meta device."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)
