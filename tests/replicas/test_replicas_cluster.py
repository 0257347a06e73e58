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
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "steering"))
from steering_requests import mixed_requests

from esr.errors import UserError
from esr.steering import make
from esr.steering.make import load_for, make_engine
from esr.steering.settings import EngineSettings
from esr.subjects.spec import SubjectSpec

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


def refused(spec: SubjectSpec, address: str, match: str) -> None:
    """Before anything is loaded, and within seconds."""
    began = time.monotonic()
    with patch.object(make, "load_subject", side_effect=AssertionError), pytest.raises(UserError, match=match):
        load_for(spec, EngineSettings(ray_address=address))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "nowhere.invalid:6379"])
def test_a_cluster_that_is_not_there(tiny_subject: Any, address: str) -> None:
    refused(tiny_subject().spec, address, rf"a Ray cluster answers at ray_address\. Got {address} \(")


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_listens_there(tiny_subject: Any, says: bytes) -> None:
    done = threading.Event()

    def answer(server: socket.socket) -> None:
        with server.accept()[0] as connection:
            connection.sendall(says)
            done.wait(60)  # says no more, and stays

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        try:
            refused(tiny_subject().spec, f"127.0.0.1:{server.getsockname()[1]}", "a Ray cluster answers at ray_address")
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize("address", ["", "nonsense", "ray://127.0.0.1:10001", "host:port", ":6379"])
def test_what_is_no_address(tiny_subject: Any, address: str) -> None:
    refused(tiny_subject().spec, address, rf"ray_address is auto, or HOST:PORT of the cluster's head\. Got '{address}'")


def test_auto_where_there_is_no_cluster(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", frozenset)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    refused(tiny_subject().spec, "auto", r"a Ray cluster answers at ray_address\. Got auto \(")
