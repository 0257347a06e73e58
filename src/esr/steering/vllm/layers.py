"""Where vLLM keeps the decoder layers of a model, and what leaves them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from esr.errors import UserError

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "GPT2LMHeadModel",
)
"""Models whose layers return the residual stream, or two tensors whose sum it is: each compared with Hugging Face's by
tests/vllm_engine. In others the second is something else (Cohere's is the layer's input), so they are refused."""


def check_architecture(config: Any) -> None:
    """Raises UserError for a model whose residual stream vLLM may keep in another way."""
    names = list(getattr(config, "architectures", None) or [])
    if not set(names) & set(ARCHITECTURES):
        raise UserError(
            f"the vllm engine steers {', '.join(ARCHITECTURES)}",
            ", ".join(names) or "a model that does not say its architecture",
            'Use backend = "hf"',
        )


def own_layers(model: nn.Module, n_layers: int) -> dict[int, nn.Module]:
    """The decoder layers that this worker holds, by their number in the whole model.

    Under pipeline parallelism vLLM fills the list of ``n_layers`` up with placeholders for the layers of other stages.
    Raises UserError unless exactly one list of the model's has that length.
    """
    found = [m for _, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    if len(found) != 1:
        raise UserError(
            f"a decoder holds its {n_layers} layers in one module list",
            f"{len(found)} such lists in {type(model).__name__}",
            'Use backend = "hf"',
        )
    return {k: layer for k, layer in enumerate(found[0]) if type(layer).__name__ != "PPMissingLayer"}


def residual_stream(output: Any) -> Tensor:
    """The residual stream [tokens, d_model] as it leaves a layer: its one tensor, or the sum of its two."""
    if isinstance(output, tuple):
        hidden, residual = output
        stream: Tensor = hidden + residual
        return stream
    whole: Tensor = output
    return whole


def with_stream(output: Any, stream: Tensor) -> Any:
    """A layer's output whose residual stream is ``stream``, bit for bit."""
    if isinstance(output, tuple):
        return stream, output[1].new_zeros(output[1].shape)
    return stream
