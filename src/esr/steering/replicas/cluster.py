"""Ray: connecting to it, what it has, and replicas as its actors. The only file that imports it."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from esr.errors import SteeringError, UserError, missing_extra
from esr.steering.replicas.replica import Item, Replica
from esr.steering.settings import EngineSettings
from esr.subjects.spec import PACKAGED, SubjectSpec, looks_like_folder

_SECONDS = 5.0  # for a connection, and for an answer
_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"  # HTTP/2's frame of settings, which both sides send first; the fourth byte says so
_BESIDE = "beside"  # calls that do not wait for those that run


class LostError(Exception):
    """A replica's process, or the machine it was on, is gone."""


def check_ray(address: str | None = None) -> None:
    """Raises UserError when Ray is missing, ``address`` is no address, or no Ray cluster answers there, which Ray would
    find out after minutes; this takes ten seconds at most."""
    if importlib.util.find_spec("ray") is None:
        raise missing_extra("replicas", "ray", "ray")
    if address is None:
        return
    at = _head() if address == "auto" else address
    host, _, port = at.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        remedy = "Leave it out for this machine alone; for a ray:// address run this on one of the cluster's machines"
        raise UserError("ray_address is auto, or HOST:PORT of the cluster's head", repr(at), remedy)
    try:
        _greet(host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        raise _no_cluster(at, error) from error


def _head() -> str:
    """Where the cluster's head is that this machine belongs to. Raises UserError if it belongs to none."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        return str(canonicalize_bootstrap_address_or_die("auto"))
    except (ConnectionError, ValueError) as error:
        raise _no_cluster("auto", error) from error


def _greet(host: str, port: int) -> None:
    """Raises OSError unless something that speaks HTTP/2, as Ray's head does, answers there."""
    with socket.create_connection((host, port), timeout=_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return  # it would answer to an encrypted greeting only
        connection.settimeout(_SECONDS)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS)
        answer = connection.recv(len(_SETTINGS), socket.MSG_WAITALL)
    if len(answer) < len(_SETTINGS) or answer[3] != _SETTINGS[3]:
        raise ConnectionError("what answers there is not Ray")


def _no_cluster(address: str | None, error: Exception) -> UserError:
    return UserError(
        "a Ray cluster answers at ray_address",
        f"{address or 'this machine'} ({_first_line(error)})",
        "Start one with `ray start --head`, and run this on one of its machines",
    )


class Cluster:
    """This process's connection to Ray; ended by ``close`` unless it was there before.

    Raises UserError for a cluster that cannot be reached, or has not the CPUs and GPUs the replicas need.
    """

    def __init__(self, spec: SubjectSpec, settings: EngineSettings) -> None:
        check_ray(settings.ray_address)
        import ray

        self._ray: Any = ray
        self._own = not ray.is_initialized()
        if self._own:
            self._connect(settings)
        try:
            self._spec = with_whole_paths(spec).model_dump_json()
            self._needs = self._what_a_replica_needs(spec, settings)
            self._sharing = settings.sharing(self._needs["GPU"])
            self._settings = settings.of_one_replica().model_dump_json()
            self._check_room(settings.replicas)
        except BaseException:
            self.close()
            raise
        self._actors: list[Any] = []
        self._actor_class = self._ray.remote(concurrency_groups={_BESIDE: 1})(Replica)

    def _connect(self, settings: EngineSettings) -> None:
        options: dict[str, Any] = {"address": settings.ray_address}
        if settings.ray_address is None:
            here = os.cpu_count() or 1
            options = {
                "address": "local",  # not a cluster that happens to be there
                "num_cpus": max(here, -(-settings.replicas * settings.cpus_per_replica // 1)),
                "include_dashboard": False,
            }
        os.environ.setdefault("RAY_worker_niceness", "0")  # they are the work itself; Ray would let all else go first
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; it warns otherwise
        try:
            self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:
            raise _no_cluster(settings.ray_address, error) from error

    def _what_a_replica_needs(self, spec: SubjectSpec, settings: EngineSettings) -> dict[str, float]:
        gpus = settings.gpus_per_replica
        if gpus is None:
            parallel = settings.vllm.tensor_parallel * settings.vllm.pipeline_parallel
            on_gpu = spec.device != "cpu" and self._ray.cluster_resources().get("GPU", 0) > 0
            gpus = 0 if not on_gpu else parallel if settings.backend == "vllm" else 1
        return {"CPU": settings.cpus_per_replica, "GPU": gpus}

    def _check_room(self, replicas: int) -> None:
        has = self._ray.cluster_resources()
        for what, each in self._needs.items():
            if each * replicas > has.get(what, 0):
                raise UserError(
                    f"the cluster has the {what}s that its replicas need",
                    f"{has.get(what, 0):g} for {replicas} replicas of {each:g}",
                    "Use fewer replicas, or set cpus_per_replica or gpus_per_replica",
                )

    def make(self) -> Any:
        """A new replica; it starts as soon as there is room for it."""
        actor = self._actor_class.options(
            num_cpus=self._needs["CPU"], num_gpus=self._needs["GPU"], max_restarts=0, max_task_retries=0
        ).remote(self._spec, self._settings, self._sharing)
        self._actors.append(actor)
        return actor

    def dismiss(self, actor: Any) -> None:
        """End a replica, if it has not ended."""
        self._ray.kill(actor)
        self._actors.remove(actor)

    def start(self, actor: Any) -> Any:
        """Begin to start it. Returns what can be waited for."""
        return actor.start.remote()

    def ask(self, actor: Any, method: str, items: Sequence[Item]) -> Any:
        """Hand out items. Returns what can be waited for, and gives one result after another."""
        return getattr(actor, method).options(num_returns="streaming").remote(list(items))

    def stop(self, actor: Any) -> None:
        """Have a replica finish what it has in flight, and begin nothing else of what it was asked."""
        actor.stop.options(concurrency_group=_BESIDE).remote()

    def resume(self, actor: Any) -> None:
        """Take ``stop`` back for what it is asked from now on."""
        if actor in self._actors:
            actor.resume.remote()

    def ready(self, waiting: Sequence[Any], timeout: float) -> list[Any]:
        """Those of ``waiting`` that have something to give or have come to an end; none after ``timeout`` seconds."""
        found: list[Any] = self._ray.wait(list(waiting), num_returns=1, timeout=timeout, fetch_local=False)[0]
        return found

    def value(self, started: Any) -> Any:
        """What an answer is. Raises LostError, and the errors of the replica: UserError and SteeringError as they are,
        others as a SteeringError with their text."""
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(started)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, (UserError, SteeringError)):
                raise error.cause from error
            raise SteeringError(f"A replica failed: {_first_line(error.cause)}") from error
        except (exceptions.RayActorError, exceptions.ObjectLostError, exceptions.NodeDiedError) as error:
            raise LostError(_first_line(error)) from error

    def next(self, stream: Any) -> Item | None:
        """The next result of ``ask``, or None when it has given all. Raises as ``value``."""
        try:
            reference = next(stream)
        except StopIteration:
            return None
        except self._ray.exceptions.RayActorError as error:
            raise LostError(_first_line(error)) from error
        item: Item = self.value(reference)
        return item

    def resources(self) -> str:
        """What the cluster has, in words."""
        has = self._ray.cluster_resources()
        return f"{has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs"

    def close(self) -> None:
        """End the replicas, and the connection if it was made here."""
        for actor in getattr(self, "_actors", ()):
            self._ray.kill(actor)
        self._actors = []
        if self._own:
            self._ray.shutdown()


def with_whole_paths(spec: SubjectSpec) -> SubjectSpec:
    """The same subject named by absolute paths: replicas do not run in this process's folder."""

    def whole(name: str | None) -> str | None:
        if name is None or name.startswith(PACKAGED) or not Path(name).expanduser().exists():
            return name
        return str(Path(name).expanduser().resolve())

    model = spec.model
    if spec.model_source() == model and looks_like_folder(model):
        model = whole(model) or model
    changes: dict[str, Any] = {"model": model, "adapter": whole(spec.adapter)}
    changes |= {"labels": None, "lexicon": None}  # read by the study's process
    if spec.sae is not None:
        changes["sae"] = spec.sae.model_copy(update={"path": whole(spec.sae.path)})
    return spec.model_copy(update=changes)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
