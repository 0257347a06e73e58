"""From settings to subject and engine, where vLLM is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_models import MODEL_ARCHITECTURES

from esr.directions.promotion import restart_promotion
from esr.errors import UserError
from esr.steering.checks import check_request
from esr.steering.engine import Request, Sampling
from esr.steering.hf import HFEngine
from esr.steering.make import load_for, make_engine
from esr.steering.on_demand import OnDemand
from esr.steering.settings import EngineSettings

VLLM = EngineSettings(backend="vllm")


@pytest.mark.parametrize("arch", MODEL_ARCHITECTURES)
def test_a_subject_for_vllm_has_all_but_the_decoder(tiny_subject: Any, arch: str) -> None:
    whole = tiny_subject(arch)
    light = load_for(whole.spec, VLLM)
    assert (light.layers, light.device.type) == ([], "cpu")
    for name in ("n_layers", "d_model", "context", "end_ids", "fingerprint", "read_layer", "steer_layer"):
        assert getattr(light, name) == getattr(whole, name)
    assert light.spec.digest() == whole.spec.digest()
    parameters = dict(whole.model.named_parameters())
    for name, parameter in light.model.named_parameters():
        assert torch.equal(parameter, parameters[name])
    size = sum(p.numel() for p in light.model.parameters())
    assert size < 0.4 * sum(p.numel() for p in parameters.values())
    vectors = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_array_equal(restart_promotion(light, vectors, [9]), restart_promotion(whole, vectors, [9]))
    check_request(light, Request("x", (9, 10), sampling=Sampling(max_new_tokens=20)))
    with pytest.raises(UserError, match=r"context of 40 tokens\. Got 2 \+ 0 \+ 60"):
        check_request(light, Request("x", (9, 10), sampling=Sampling(max_new_tokens=60)), context=40)


def test_the_hf_engine_refuses_a_subject_without_its_decoder(tiny_subject: Any) -> None:
    """It would answer from the embedding alone, without a complaint."""
    light = load_for(tiny_subject().spec, VLLM)
    with pytest.raises(UserError, match=r"loaded with its decoder weights\. Got one without"):
        make_engine(light, EngineSettings())


def test_hf_is_the_default(tiny_subject: Any) -> None:
    settings = EngineSettings(batch_size=5)
    engine = make_engine(load_for(tiny_subject().spec, settings), settings)
    assert isinstance(engine, HFEngine)
    assert engine.batch_size == 5


def test_a_missing_vllm_is_named_before_anything_starts(tiny_subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("esr.steering.vllm.start.version", version)
    with pytest.raises(UserError, match=r"extra `vllm`\. Got no vllm\. .*pip install \'\.\[vllm\]\'"):
        make_engine(tiny_subject(), VLLM)


def test_an_engine_on_demand_starts_when_it_is_needed_and_again_when_it_was_closed(tiny_subject: Any) -> None:
    subject = tiny_subject()
    started: list[HFEngine] = []

    def start() -> HFEngine:
        started.append(HFEngine(subject))
        return started[-1]

    engine = OnDemand(HFEngine(subject).check, start)
    request = Request("x", (9, 10), sampling=Sampling(0, max_new_tokens=2))
    with pytest.raises(UserError, match=r"context of 128 tokens"):
        engine.generate([Request("long", (9,) * 255, sampling=Sampling(max_new_tokens=2))])
    assert (list(engine.generate([])), engine.about(), started) == ([], {}, [])
    first = list(engine.generate([request]))
    assert (engine.about()["engine"], len(started)) == ("hf", 1)
    engine.close()
    assert engine.about() == {}
    assert list(engine.generate([request])) == first
    assert len(started) == 2


@pytest.mark.parametrize("values", [{"backend": "tgi"}, {"batch_size": 0}, {"vllm": {"memory_share": 1.5}}, {"tp": 2}])
def test_settings_are_validated(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EngineSettings.model_validate(values)


def test_gemma_2_caps_its_attention_logits(tiny_subject: Any) -> None:
    """Attention through PyTorch's fused kernel does not, and transformers 5.19 chooses it."""
    assert tiny_subject("gemma2").model.config._attn_implementation == "eager"
