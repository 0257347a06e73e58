"""From settings to an engine, and to the subject it needs."""

from __future__ import annotations

from esr.steering.engine import Engine
from esr.steering.settings import EngineSettings
from esr.subjects.loading import Subject, load_subject
from esr.subjects.spec import SubjectSpec


def load_for(spec: SubjectSpec, settings: EngineSettings) -> Subject:
    """The subject, with the weights its engine needs in this process.

    vLLM loads the weights itself. What the rest of the software uses of the model are the unembedding and the final
    norm (restart promotion), so for ``vllm`` only those, and the embedding, are loaded here, on the CPU; the decoder
    layers are left out. Raises what ``load_subject`` raises.
    """
    if settings.backend == "hf":
        return load_subject(spec)
    return load_subject(spec.model_copy(update={"device": "cpu", "device_map": None}), decoder_weights=False)


def make_engine(subject: Subject, settings: EngineSettings) -> Engine:
    """The engine of the settings, started. Raises UserError for a backend that is not installed or cannot run it."""
    if settings.backend == "hf":
        from esr.steering.hf import HFEngine

        return HFEngine(subject, settings.batch_size)
    from esr.steering.vllm.engine import VLLMEngine

    return VLLMEngine(subject, settings.vllm, settings.batch_size or 64)
