"""The memory a run takes, by what will run: how many copies of the model share which memory, each with how many
responses at once. Known from the model's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch

from esr.steering.engine import Request, Sampling
from esr.steering.memory import bytes_per_row, fitting_rows, free_bytes
from esr.steering.settings import BATCH
from esr.studies.config import StudyConfig
from esr.subjects.loading import model_device
from esr.subjects.part import empty_model

_GIB = 2**30


@dataclass(frozen=True)
class Need:
    """Bytes that each copy of the model takes, and where."""

    weights: float
    sae: float
    working: float
    """Keys and values, logits and activations of its responses in flight."""
    rows: int
    """Responses in flight, at most."""
    copies: int
    """Copies that share the memory."""
    free: float | None
    """What is free of it; None when that cannot be known here."""
    where: str

    @property
    def loaded(self) -> float:
        """Of all copies before anything is generated."""
        return self.copies * (self.weights + self.sae)

    @property
    def total(self) -> float:
        """Of all copies at work."""
        return self.loaded + self.copies * self.working

    def __str__(self) -> str:
        said = (
            f"about {self.total / _GIB:.1f} GiB: weights {self.weights / _GIB:.1f}, SAE {self.sae / _GIB:.1f},"
            f" {self.rows} responses at once {self.working / _GIB:.1f}"
        )
        return said if self.copies == 1 else f"{said}, each for {self.copies} replicas"


def memory_need(config: StudyConfig, model: Any, prompt: int, sae: float) -> Need:
    """What the engine of the settings will take.

    model: the model's configuration; prompt: tokens of the longest prompt; sae: bytes of the SAE.
    """
    spec, engine = config.subject, config.engine
    empty = empty_model(model, getattr(torch, spec.dtype))
    weights = sum(p.numel() * p.element_size() for p in empty.parameters())
    text = model.get_text_config(decoder=True)
    subject = cast(Any, SimpleNamespace(model=empty, device=model_device(spec), n_layers=text.num_hidden_layers))
    request = Request("", (0,) * max(1, prompt), sampling=Sampling(max_new_tokens=config.sampling.max_new_tokens))
    copies, free, where = _place(config)
    rows = engine.batch_size
    if rows is None and engine.backend == "vllm":
        rows = BATCH
    elif rows is None:
        left = None if free is None else int(free - copies * (weights + sae))
        rows = fitting_rows(subject, [request], left, sharing=copies)
    working = rows * bytes_per_row(subject, prompt + request.sampling.max_new_tokens)
    return Need(weights, sae, working, rows, copies, free, where)


def _place(config: StudyConfig) -> tuple[int, float | None, str]:
    """Copies of the model that share a memory, the bytes free of it, and its name."""
    spec, engine = config.subject, config.engine
    if engine.ray_address is not None:
        return 1, None, "the machine of each replica"
    device = model_device(spec)
    if device.type != "cuda":
        return engine.replicas, free_bytes(device), "this machine"
    parallel = engine.vllm.tensor_parallel * engine.vllm.pipeline_parallel if engine.backend == "vllm" else 1
    gpus = engine.gpus_per_replica
    if gpus is None:
        gpus = parallel if engine.replicated or engine.backend == "vllm" or not spec.device_map else float("inf")
    count = int(min(max(1, gpus), torch.cuda.device_count()))
    if count == 1:
        return engine.sharing(gpus), free_bytes(device), "the GPU"
    return 1, sum(torch.cuda.mem_get_info(i)[0] for i in range(count)), f"{count} GPUs"
