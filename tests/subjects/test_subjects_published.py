"""The published subjects are those of the paper, and their SAEs and sizes are what the libraries say."""

from __future__ import annotations

import pytest

from esr.errors import UserError
from esr.subjects.published import published_subject, published_subjects, subject_rows
from esr.subjects.spec import ORGANISMS

MODELS = ("llama-3.3-70b", "llama-3.1-8b", "gemma-2-27b", "gemma-2-9b", "gemma-2-2b")


def test_keys():
    presets = published_subjects()
    assert list(presets) == [f"{m}/{v}" for m in MODELS for v in ("paper", "released")] + list(ORGANISMS)
    assert all(key == preset.key for key, preset in presets.items())
    assert len({p.spec.digest() for p in presets.values()}) == len(MODELS) + len(ORGANISMS)


def test_the_variants_differ_in_the_repetition_penalty_only():
    released = dict(zip(MODELS, (1.2, 1.15, 1.1, 1.1, 1.1), strict=True))
    for model in MODELS:
        paper, code = published_subject(f"{model}/paper"), published_subject(f"{model}/released")
        assert (paper.repetition_penalty, code.repetition_penalty) == (1.1, released[model])
        assert paper.spec == code.spec
        assert (paper.temperature, paper.max_new_tokens) == (code.temperature, code.max_new_tokens) == (0.6, 512)


def test_saelens_knows_the_saes():
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory = get_pretrained_saes_directory()
    for model in MODELS:
        preset = published_subject(f"{model}/paper")
        sae = preset.spec.sae
        assert sae.id in directory[sae.release].saes_map
        config = load_sae_config_from_huggingface(sae.release, sae.id)  # these loaders ask the network for nothing
        assert (config["d_in"], config["d_sae"]) == (preset.d_model, preset.d_sae)
        assert config["metadata"]["hook_name"] == f"blocks.{preset.spec.read_layer}.hook_resid_post"


LLAMA = {"vocab_size": 128256, "num_key_value_heads": 8, "tie_word_embeddings": False}
GEMMA = {"vocab_size": 256000, "head_dim": 256}
CONFIGS = {
    "llama-3.3-70b": LLAMA | {"intermediate_size": 28672, "num_attention_heads": 64},
    "llama-3.1-8b": LLAMA | {"intermediate_size": 14336, "num_attention_heads": 32},
    "gemma-2-27b": GEMMA
    | {"intermediate_size": 36864, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128},
    "gemma-2-9b": GEMMA | {"intermediate_size": 14336, "num_attention_heads": 16, "num_key_value_heads": 8},
    "gemma-2-2b": GEMMA | {"intermediate_size": 9216, "num_attention_heads": 8, "num_key_value_heads": 4},
}


@pytest.mark.parametrize("model", MODELS)
def test_parameter_counts(model):
    """Counted on the meta device from the models' published configurations."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

    preset = published_subject(f"{model}/paper")
    config_class = LlamaConfig if model.startswith("llama") else Gemma2Config
    config = config_class(hidden_size=preset.d_model, num_hidden_layers=preset.n_layers, **CONFIGS[model])
    with torch.device("meta"):
        counted = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    assert counted == preset.parameters


def test_table():
    rows = {row["key"]: row for row in subject_rows()}
    row = rows["llama-3.3-70b/released"]
    assert row["model"] == "meta-llama/Llama-3.3-70B-Instruct"
    assert (row["layers"], row["steered"], row["read"]) == (80, 33, 50)
    assert row["download GB"] == pytest.approx(145.4, abs=0.1)  # 141.1 of model, 4.3 of SAE
    assert row["memory GB"] == pytest.approx(174.5, abs=0.1)
    assert row["prior"] == "7 ± 5, at most 100"
    assert row["SAE"] == "goodfire-llama-3.3-70b-instruct / layer_50"
    assert rows["organism"]["SAE"] == "packaged"
    assert rows["organism"]["download GB"] == 0


def test_unknown_preset():
    with pytest.raises(
        UserError, match=r"a preset is one of llama-3.3-70b/paper.*Got gpt-5.*List them with `esr subjects`"
    ):
        published_subject("gpt-5")
