"""How responses are computed: which engine, and how much it may hold."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class VLLMSettings(BaseModel):
    """What the vllm engine is started with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor_parallel: int = Field(1, ge=1)
    """Devices every layer is spread over."""
    pipeline_parallel: int = Field(1, ge=1)
    """Groups of devices the layers are divided among."""
    max_model_len: int | None = Field(None, ge=2)
    """Most tokens of a prompt and its response. Default: the model's context, or as much of it as fits into memory."""
    max_batched_tokens: int | None = Field(None, ge=1)
    """Most tokens of one step; longer prompts are computed in chunks. Default: vLLM's."""
    memory_share: float = Field(0.9, gt=0, le=1)
    """Share of each GPU's memory that weights and key-value cache may fill; the SAE needs room beside them."""
    cache_gib: float | None = Field(None, gt=0)
    """Key-value cache per device in GiB. Default: what ``memory_share`` leaves; on a CPU 1."""


class EngineSettings(BaseModel):
    """How it is computed. May change between runs of one study: greedy float32 results do not depend on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Literal["hf", "vllm"] = "hf"
    """``hf``: transformers, any causal language model; ``vllm``: upstream vLLM (extra ``vllm``). Greedy tokens are the
    same; sampled ones are not, because vLLM draws with another generator."""
    batch_size: int | None = Field(None, ge=1)
    """Most requests in flight. Default: as many as fit into the free memory (hf), 64 (vllm)."""
    vllm: VLLMSettings = VLLMSettings()
