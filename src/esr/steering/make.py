"""From settings to an engine, and to the subject it needs."""

from __future__ import annotations

from collections.abc import Callable

from esr.errors import UserError
from esr.steering.checks import check_request
from esr.steering.engine import Engine, Request
from esr.steering.on_demand import OnDemand
from esr.steering.settings import BATCH, EngineSettings
from esr.subjects.loading import Subject, load_subject
from esr.subjects.spec import SubjectSpec

Check = Callable[[Request], None]


def load_for(spec: SubjectSpec, settings: EngineSettings) -> Subject:
    """The subject, with the weights its engine needs in this process.

    vLLM and replicas load the weights themselves. What the rest of the software uses of the model are the unembedding
    and the final norm (restart promotion), so for them only those, and the embedding, are loaded here, on the CPU; the
    decoder layers are left out. Raises what ``load_subject`` raises, and UserError, before anything is loaded, for
    replicas without Ray or without the cluster they are to run on.
    """
    if settings.replicated:
        _check_ray(settings)
    if settings.backend == "hf" and not settings.replicated:
        return load_subject(spec)
    return load_subject(spec.model_copy(update={"device": "cpu", "device_map": None}), decoder_weights=False)


def make_check(subject: Subject, settings: EngineSettings) -> Check:
    """What refuses a request that the engine of these settings cannot run, without starting it.

    Raises UserError for a backend or Ray that is not installed, for a subject the backend cannot run, and for
    ``cuda_graphs`` where there are none.
    """
    _check_graphs(subject, settings)
    if settings.replicated:
        _check_ray(settings)
    if settings.backend == "hf":
        return lambda request: check_request(subject, request)
    from esr.steering.vllm.requests import check_for_vllm
    from esr.steering.vllm.start import check_subject, check_version

    check_version()
    check_subject(subject)
    return lambda request: check_for_vllm(subject, request, settings.vllm.max_model_len)


def make_engine(subject: Subject, settings: EngineSettings, spec: SubjectSpec | None = None) -> Engine:
    """The engine of the settings. vLLM and replicas start when they are first needed.

    ``spec``: what replicas load, default the subject's own; where ``load_for`` has put a subject on the CPU, the spec
    that was asked for. Raises UserError as ``make_check``.
    """
    check = make_check(subject, settings)
    if settings.replicated:
        from esr.steering.replicas.engine import Replicas

        return OnDemand(check, lambda: Replicas(settings, check, spec or subject.spec))
    if settings.backend == "hf":
        return start_engine(subject, settings)
    return OnDemand(check, lambda: start_engine(subject, settings))


def start_engine(subject: Subject, settings: EngineSettings, *, sharing: int = 1) -> Engine:
    """An engine in this process, started, whatever the settings say about replicas. ``sharing``: engines that share the
    memory it is in."""
    if settings.backend == "hf":
        from esr.steering.graphs import cuda_graphs
        from esr.steering.hf import HFEngine

        graphs = cuda_graphs(subject) if settings.cuda_graphs else None
        return HFEngine(subject, settings.batch_size, graphs, sharing=sharing)
    from esr.steering.vllm.engine import VLLMEngine

    return VLLMEngine(subject, settings.vllm, settings.batch_size or BATCH)


def _check_ray(settings: EngineSettings) -> None:
    from esr.steering.replicas.cluster import check_ray

    check_ray(settings.ray_address)


def _check_graphs(subject: Subject, settings: EngineSettings) -> None:
    if settings.cuda_graphs and settings.backend != "hf":
        raise UserError("cuda_graphs is a setting of the hf engine", f"backend = {settings.backend}")
    if settings.cuda_graphs and not settings.replicated:  # a replica checks the subject it has loaded
        from esr.steering.graphs import cuda_graphs

        cuda_graphs(subject)
