"""Engines on the organism. Run by `make test-vllm`, in an environment that has vLLM; skipped where there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from esr.errors import UserError

os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # tests share their cores


def _has_vllm() -> bool:
    from esr.steering.vllm.start import check_version

    try:
        check_version()
    except (UserError, PackageNotFoundError):
        return False
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder's tests where vLLM is missing or another version."""
    here = [item for item in items if "vllm_engine" in item.path.parts]
    if here and not _has_vllm():
        for item in here:
            item.add_marker(pytest.mark.skip(reason="needs a supported vLLM: make test-vllm"))


@pytest.fixture(scope="session")
def organism() -> Any:
    """The organism's subject with its weights."""
    from esr.subjects.loading import load_subject
    from esr.subjects.published import published_subject

    return load_subject(published_subject("organism").spec)


@pytest.fixture(scope="session")
def reference(organism: Any) -> Any:
    """The Hugging Face engine on the organism."""
    from esr.steering.hf import HFEngine

    return HFEngine(organism)


@contextmanager
def running(spec: Any, batch_size: int = 64, own_process: bool = False, **settings: Any) -> Iterator[Any]:
    """A vLLM engine, started, and closed in the end."""
    from esr.steering.make import load_for, make_engine
    from esr.steering.settings import EngineSettings

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(own_process))
    chosen = EngineSettings.model_validate(
        {"backend": "vllm", "batch_size": batch_size, "vllm": {"cache_gib": 0.25} | settings}
    )
    on_demand: Any = make_engine(load_for(spec, chosen), chosen)
    try:
        yield on_demand.started()
    finally:
        on_demand.close()


@pytest.fixture(scope="session")
def run_engine() -> Callable[..., Any]:
    """``with run_engine(spec, batch_size, own_process, **vllm_settings) as engine``."""
    return running


@pytest.fixture(scope="module")
def engine(organism: Any) -> Iterator[Any]:
    """One engine for the tests of a file, in this process."""
    with running(organism.spec) as started:
        yield started


@pytest.fixture
def table(engine: Any) -> Any:
    """What the engine's only worker knows."""
    return engine._vllm.model_executor.driver_worker.worker.esr_table
