"""Every architecture the engine says it steers, against Hugging Face, and those it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from vllm_requests import answers, differing, mixed_requests

from esr.errors import UserError
from esr.steering.hf import HFEngine
from esr.steering.vllm.layers import ARCHITECTURES
from esr.steering.vllm.start import check_subject, check_version
from esr.subjects.loading import load_subject
from esr.subjects.spec import SaeSpec, SubjectSpec

HEADS = {"hidden_size": 128, "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
"""vLLM's attention on a CPU has no heads of 16."""


def tiny_model(arch: str, folder: Path, tokenizer: Any) -> str:
    """Save a random model of 4 layers. Returns the name of its class."""
    import transformers as hf

    if arch == "qwen2":
        config: Any = hf.Qwen2Config(**tiny_models._tiny_config("qwen3", len(tokenizer)).to_dict() | HEADS)
    elif arch == "gpt2":
        config = tiny_models._tiny_config(arch, len(tokenizer))
        config.n_embd, config.n_head = 128, 4
    else:
        shape = tiny_models._tiny_config(arch, len(tokenizer)).to_dict() | HEADS
        if arch in ("gemma2", "gemma3"):
            shape["query_pre_attn_scalar"] = 32
        config = type(tiny_models._tiny_config(arch, len(tokenizer)))(**shape)
    torch.manual_seed(7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "_tiny_config", lambda *_: config)
        model = tiny_models._random_model(arch, len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(model.config.architectures[0])


ALL = ["llama", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("mistral", "qwen2", "qwen3", "gemma3")),
       "gemma2", "gpt2"]  # fmt: skip


@pytest.mark.parametrize("arch", ALL)
def test_architecture(arch: str, tmp_path: Path, tiny_tokenizer: Any, tiny_sae_folder: Any, run_engine: Any) -> None:
    assert tiny_model(arch, tmp_path, tiny_tokenizer) in ARCHITECTURES
    sae = SaeSpec(path=str(tiny_sae_folder("jumprelu", d_in=128, layer=1)))
    subject = load_subject(SubjectSpec(model=str(tmp_path), sae=sae, steer_layer=1, device="cpu"))
    requests, reference = mixed_requests(subject, 24, seed=41, lengths=(2, 30)), HFEngine(subject)
    with run_engine(subject.spec) as engine:
        assert differing(answers(engine, requests), answers(reference, requests)) == []
        ids = requests[0].prompt_ids
        for own in ((), requests[0].interventions):
            expected = reference.read(ids, range(96), own)
            largest = float(expected.max())  # the streams of these models are as large as 50: float32's last bits count
            np.testing.assert_allclose(engine.read(ids, range(96), own), expected, rtol=0, atol=1e-5 * largest)


def test_another_architecture_is_refused(organism: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organism.model.config, "architectures", ["CohereForCausalLM"])
    with pytest.raises(UserError, match=r"Got CohereForCausalLM\. Use backend"):
        check_subject(organism)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esr.steering.vllm.start.version", lambda package: "0.31.2")
    with pytest.raises(UserError, match=r"made for vLLM 0\.32, .* Got 0\.31\.2"):
        check_version()


def test_a_vllm_that_does_not_start_is_a_clear_error(organism: Any, run_engine: Any) -> None:
    with (
        pytest.raises(UserError, match="vLLM starts with this subject and these settings"),
        run_engine(organism.spec, max_model_len=100_000),
    ):
        pass
