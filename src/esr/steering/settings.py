"""How responses are computed: which engine, and how much it may hold."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

BATCH = 64
"""Requests in flight where neither the user nor free memory says how many."""


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
    """How it is computed. May change between runs of one study, except for ``backend`` where tokens are sampled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Literal["hf", "vllm"] = "hf"
    """``hf``: transformers, any causal language model; ``vllm``: upstream vLLM (extra ``vllm``). Greedy float32 tokens
    are the same; sampled ones are not, because vLLM draws with another generator, so a study keeps its backend."""
    batch_size: int | None = Field(None, ge=1)
    """Most requests in flight, in each replica. Default: as many as fit into the free memory, or into its share
    of it (hf), 64 (vllm)."""
    replicas: int = Field(1, ge=1)
    """Engines at work on the study, each in a process of its own (extra ``ray``); 1 without ``ray_address``: one, in
    this process."""
    ray_address: str | None = None
    """The Ray cluster the replicas run on: ``auto``, or HOST:PORT of its head. Default: this machine alone."""
    gpus_per_replica: float | None = Field(None, ge=0)
    """GPUs Ray sets aside for each replica. Default: 0 for a subject on the CPU or a cluster without a GPU; else those
    that vLLM's parallel settings name, or 1."""
    cpus_per_replica: float = Field(1.0, gt=0)
    """CPU cores Ray sets aside for each replica, and threads it computes with on a CPU."""
    cuda_graphs: bool = False
    """hf on one CUDA device: launch a recorded decoding step as a whole instead of kernel by kernel from Python. Off
    because nobody has run it on a GPU yet: checked against ordinary steps on a CPU, and checks itself where it runs."""
    vllm: VLLMSettings = VLLMSettings()

    @property
    def replicated(self) -> bool:
        """Whether engines run as Ray actors."""
        return self.replicas > 1 or self.ray_address is not None

    def sharing(self, gpus: float) -> int:
        """How many replicas share a memory when each has so many GPUs: a GPU's, or the machine's for 0."""
        return self.replicas if not gpus else min(self.replicas, max(1, int(1 / gpus)))

    def of_one_replica(self) -> EngineSettings:
        """What each replica starts its own engine with."""
        return self.model_copy(update={"replicas": 1, "ray_address": None})
