"""Replicas on a Ray cluster that was there before, joined by its address."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "steering"))
from steering_requests import mixed_requests

from esr.errors import UserError
from esr.steering.make import make_engine
from esr.steering.settings import EngineSettings

pytest.importorskip("ray")


@pytest.fixture
def cluster() -> Iterator[str]:
    """A cluster of one machine, in a session of its own. Yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # its sockets' names are short only there
    command = [f"{sysconfig.get_path('scripts')}/ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1",
               f"--port={port}", "--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}"]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "Ray runtime started" in line:
                    break
            else:
                raise AssertionError("ray start ended by itself")
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_cluster_is_joined_by_its_address(cluster: str, tiny_subject: Any) -> None:
    subject = tiny_subject()
    settings = EngineSettings(replicas=2, ray_address=cluster, batch_size=16)
    requests = mixed_requests(60)
    engine = make_engine(subject, settings)
    try:
        found = {r.id: r for r in engine.generate(requests)}
        assert engine.about()["replicas"] == "2"
    finally:
        engine.close()
    assert found == {r.id: r for r in make_engine(subject, EngineSettings()).generate(requests)}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "nowhere.invalid:6379"])
def test_a_cluster_that_is_not_there(tiny_subject: Any, address: str) -> None:
    with pytest.raises(UserError, match=rf"a Ray cluster answers at ray_address\. Got {address} \("):
        make_engine(tiny_subject(), EngineSettings(ray_address=address))
