"""Tiny random-weight models, tokenizers and SAEs for every folder's tests: seeded, made once per session.

``tiny_model_folder(arch)`` and ``tiny_sae_folder(arch, ...)`` are factories that return folders on disk, so
that tests go through the same public path as a user. All models share one tokenizer and have D_MODEL and
N_LAYERS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

D_MODEL = 64
N_LAYERS = 4
CONTEXT = 128
SEED = 20261122

MODEL_ARCHITECTURES = ("llama", "gemma2", "gemma3", "qwen3", "mistral", "gpt2")
SAE_ARCHITECTURES = ("standard", "jumprelu", "topk", "gated", "batchtopk")

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>", "<end>")
WORDS = """
the a an and or but to of in on is are was it that this you your we they i how do explain make bake build
grow write clean paint fix bread soup garden chair bike letter story song wall window door water fire
stone tree river cloud bird cat dog horse fish lamp clock paper glass first then next after before while
until finally wait no not sorry let me start over again actually right wrong answer question cut mix heat
cool wash dry hold turn push pull slowly well small large red blue green . , ? !
""".split()  # noqa: SIM905
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A word-level tokenizer: 8 special tokens, about 110 words, adds <bos> itself, has a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<system>", "<user>", "<assistant>", "<end>"],
        chat_template=CHAT_TEMPLATE,
    )


def _tiny_config(arch: str, vocabulary: int) -> Any:
    import transformers as hf

    ends = [SPECIAL_TOKENS.index("<eos>"), SPECIAL_TOKENS.index("<end>")]
    special = {"bos_token_id": 1, "eos_token_id": ends, "pad_token_id": 0}
    if arch == "gpt2":
        return hf.GPT2Config(
            vocab_size=vocabulary, n_embd=D_MODEL, n_layer=N_LAYERS, n_head=4, n_positions=CONTEXT,
            initializer_range=0.2, **special,
        )  # fmt: skip
    shape: dict[str, Any] = dict(
        vocab_size=vocabulary, hidden_size=D_MODEL, intermediate_size=96, num_hidden_layers=N_LAYERS,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=CONTEXT,
        initializer_range=0.2, **special,
    )  # fmt: skip
    configs = {
        "llama": hf.LlamaConfig,
        "gemma2": hf.Gemma2Config,
        "gemma3": hf.Gemma3TextConfig,
        "qwen3": hf.Qwen3Config,
        "mistral": hf.MistralConfig,
    }
    if arch in ("gemma2", "gemma3"):
        shape |= {"query_pre_attn_scalar": 16, "sliding_window": 64}
    return configs[arch](**shape)


def _random_model(arch: str, vocabulary: int) -> Any:
    """With norm weights that let layers outweigh the embedding: Gemma would repeat its last token for
    ever."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(_tiny_config(arch, vocabulary))
    if arch in ("gemma2", "gemma3"):
        for name, parameter in model.named_parameters():
            if "post_" in name and "layernorm" in name:
                parameter.data.normal_(3.0, 1.0)
    return model


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Callable[..., Path]:
    """``tiny_model_folder(arch, seed=SEED)``: folder of a random-weight model of MODEL_ARCHITECTURES,
    float32."""
    made: dict[tuple[str, int], Path] = {}

    def folder(arch: str = "llama", seed: int = SEED) -> Path:
        if (arch, seed) not in made:
            import torch

            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = _random_model(arch, len(tiny_tokenizer))
            path = tmp_path_factory.mktemp(f"model-{arch}")
            model.save_pretrained(path)
            tiny_tokenizer.save_pretrained(path)
            made[arch, seed] = path
        return made[arch, seed]

    return folder


@pytest.fixture(scope="session")
def tiny_sae_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``tiny_sae_folder(arch, d_in=D_MODEL, d_sae=96, layer=1, seed=SEED, **cfg)``: folder of a random SAE
    of SAE_ARCHITECTURES as SAELens saves it for inference; cfg goes into its SAELens configuration.

    About a third of the latents are active on unit-normal input (k = 8 of a position for the TopK kinds).
    ``hook_name`` replaces the default ``blocks.{layer}.hook_resid_post``; ``training=True`` saves the
    training form.
    """
    made: dict[str, Path] = {}

    def folder(
        arch: str = "standard",
        d_in: int = D_MODEL,
        d_sae: int = 96,
        layer: int = 1,
        seed: int = SEED,
        training: bool = False,
        hook_name: str | None = "",
        **cfg: Any,
    ) -> Path:
        key = repr((arch, d_in, d_sae, layer, seed, training, hook_name, sorted(cfg.items())))
        if key not in made:
            hook = f"blocks.{layer}.hook_resid_post" if hook_name == "" else hook_name
            sae = random_sae(arch, d_in, d_sae, seed, hook, training=training, **cfg)
            path = tmp_path_factory.mktemp(f"sae-{arch}")
            save = sae.save_inference_model if arch == "batchtopk" and not training else sae.save_model
            save(path)
            made[key] = path
        return made[key]

    return folder


def random_sae(
    arch: str, d_in: int, d_sae: int, seed: int, hook_name: str | None, training: bool = False, **cfg: Any
) -> Any:
    """A SAELens SAE with random weights in every parameter, so that no term of its definition is zero."""
    import torch
    from sae_lens.registry import get_sae_class, get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = get_sae_training_class(arch) if training or arch == "batchtopk" else get_sae_class(arch)
    if arch in ("topk", "batchtopk"):
        cfg.setdefault("k", 8)
    metadata = SAEMetadata(model_name="tiny", hook_name=hook_name)
    sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, metadata=metadata, **cfg))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sae.named_parameters():
        scale, shift = {
            "W_enc": (d_in**-0.5, 0.0),
            "W_dec": (1.0, 0.0),
            "threshold": (0.0, 0.7),
            "b_enc": (0.3, -0.3),
        }.get(name, (0.2, 0.0))
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_((noise * scale + shift).to(parameter.dtype))
    if arch == "batchtopk":
        sae.topk_threshold.fill_(0.9 * d_in**0.5 if sae.cfg.rescale_acts_by_decoder_norm else 0.9)
    return sae


@pytest.fixture(scope="session")
def tiny_subject(tiny_model_folder: Any, tiny_sae_folder: Any) -> Callable[..., Any]:
    """``tiny_subject(arch="llama", sae="standard")``: a loaded subject with an SAE of layer 1, made once."""
    from esr.subjects.loading import load_subject
    from esr.subjects.spec import SaeSpec, SubjectSpec

    made: dict[tuple[str, str], Any] = {}

    def subject(arch: str = "llama", sae: str = "standard") -> Any:
        if (arch, sae) not in made:
            spec = SubjectSpec(
                model=str(tiny_model_folder(arch)),
                sae=SaeSpec(path=str(tiny_sae_folder(sae, layer=1))),
                steer_layer=1,
                device="cpu",
            )
            made[arch, sae] = load_subject(spec)
        return made[arch, sae]

    return subject
