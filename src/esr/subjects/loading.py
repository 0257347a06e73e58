"""From a spec to a loaded subject."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from esr.errors import UserError, missing_extra
from esr.subjects.fingerprint import folder_fingerprint
from esr.subjects.labels import read_labels
from esr.subjects.latents import LatentReader
from esr.subjects.layers import check_layer, decoder_layers, drop_layers
from esr.subjects.sae import first_line, load_reader, read_layer_of
from esr.subjects.spec import SubjectSpec, looks_like_folder
from esr.subjects.threads import choose_threads


@dataclass
class Subject:
    """A loaded model with its tokenizer and, if the spec names one, its SAE."""

    spec: SubjectSpec
    model: Any
    """The Hugging Face model: evaluation mode, no gradients."""
    tokenizer: Any
    layers: list[nn.Module]
    """Decoder layers in order; the output of each is the residual stream [batch, tokens, d_model]. Empty in a subject
    loaded without its decoder weights."""
    reader: LatentReader | None
    """The SAE, on the device of the layer it reads."""
    steer_layer: int
    read_layer: int
    """0-based; checked against the model. Without an SAE, read_layer is the spec's or else steer_layer."""
    d_model: int
    n_layers: int
    context: int | None
    """Most positions the model was built for; None if its configuration does not say."""
    device: torch.device
    """Where token ids go in."""
    end_ids: frozenset[int]
    """Tokens that end a response: those of the generation configuration and the tokenizer's end token."""
    fingerprint: str
    """Hash of the weights' files (folders) or the commit (hub): changes when the same name means other
    weights."""
    labels: dict[int, str] = field(default_factory=dict)
    """{latent: label}. Untrusted text."""

    def require_reader(self) -> LatentReader:
        """The SAE. Raises UserError if the subject has none."""
        if self.reader is None:
            raise UserError(
                "clamping and reading latents need an SAE",
                "a subject without one",
                "Set sae.path, or sae.release and sae.id",
            )
        return self.reader


def load_subject(spec: SubjectSpec, decoder_weights: bool = True) -> Subject:
    """Load model, tokenizer and SAE, and check that they fit together.

    Weights come from safetensors files only; code that comes with a model runs only with
    ``trust_remote_code``. Without ``decoder_weights`` the model has no decoder layers, only embedding, final norm and
    unembedding: for an engine that loads the weights elsewhere. Raises UserError for everything the user can put
    right: unknown model, adapter or SAE, an SAE of another width, a layer the model does not have, unreadable labels,
    a missing extra.
    """
    device = model_device(spec)
    whole = load_config(spec)
    config = whole.get_text_config(decoder=True)
    d_model, n_layers = int(config.hidden_size), int(config.num_hidden_layers)
    steer_layer = check_layer("steer_layer", spec.steer_layer, n_layers)
    read_layer = check_layer("read_layer", steer_layer if spec.read_layer is None else spec.read_layer, n_layers)
    reader = None
    if spec.sae is not None:  # before the model, whose weights take longer
        reader = load_reader(spec)
        if reader.d_in != d_model:
            raise UserError(
                f"the SAE is as wide as the residual stream, {d_model} for {spec.model}",
                f"an SAE of width {reader.d_in}",
                "Choose an SAE trained on this model",
            )
        read_layer = check_layer("read_layer", read_layer_of(reader, spec), n_layers)
    labels_path = spec.labels_path()
    labels = read_labels(labels_path, reader.d_sae if reader else None) if labels_path else {}
    tokenizer = load_tokenizer(spec)
    model = load_model(spec, device, whole, None if decoder_weights else 0)
    if decoder_weights:  # else the model computes elsewhere
        choose_threads(sum(p.numel() for p in model.parameters()), device)
    layers = decoder_layers(model) if decoder_weights else []
    if reader is not None:
        reader.to(next(layers[read_layer].parameters()).device if layers else device)
    return Subject(
        spec=spec,
        model=model,
        tokenizer=tokenizer,
        layers=layers,
        reader=reader,
        steer_layer=steer_layer,
        read_layer=read_layer,
        d_model=d_model,
        n_layers=n_layers,
        context=getattr(config, "max_position_embeddings", None),
        device=model.get_input_embeddings().weight.device,
        end_ids=_end_ids(model, tokenizer),
        fingerprint=_fingerprint(spec, model),
        labels=labels,
    )


def model_device(spec: SubjectSpec) -> torch.device:
    """Where a spec's model goes, ``device_map`` aside. Raises UserError for a device that is not there."""
    name = spec.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError("device is auto, or a device torch knows", name, "Use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("a CUDA device is there", name, "Use device auto or cpu, or install a CUDA build of torch")
    return device


def load_config(spec: SubjectSpec) -> Any:
    """The model's configuration by itself. Raises UserError for an unknown model."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            _source(spec), revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except UserError:
        raise
    except Exception as error:
        raise _unknown_model(spec, error) from error


def load_model(spec: SubjectSpec, device: torch.device, config: Any, layers: int | None = None) -> Any:
    """The model by itself; ``layers``: with its first so many decoder layers only (with an adapter: 0, or all).
    Raises UserError."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar of a second or two, in the middle of somebody's output
    options: dict[str, Any] = {"device_map": spec.device_map} if spec.device_map else {}
    if getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None):
        options["attn_implementation"] = "eager"  # Gemma 2: transformers 5.19's default leaves the capping out
    if layers is not None and not spec.adapter:
        options["config"] = _with_layers(config, layers)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            _source(spec),
            revision=spec.revision,
            dtype=getattr(torch, spec.dtype),
            use_safetensors=True,
            trust_remote_code=spec.trust_remote_code,
            **options,
        )
        if not spec.device_map:
            model = model.to(device)
    except torch.OutOfMemoryError as error:
        raise UserError(
            "a model fits into the device's memory",
            f"{spec.model} in {spec.dtype} on {spec.device_map or device}",
            'Use a 16-bit dtype, or device_map = "auto" to spread it over several devices',
        ) from error
    except Exception as error:
        raise _unknown_model(spec, error) from error
    if spec.adapter:
        model = _merge_adapter(model, spec.adapter)
        if layers == 0:
            drop_layers(model)
    return model.eval().requires_grad_(False)


def save_merged(spec: SubjectSpec, folder: Path) -> None:
    """Write the model with its adapter merged, config and safetensors, for an engine that reads weights from files.

    Merged on the CPU. Raises UserError as ``load_subject``.
    """
    model = load_model(spec.model_copy(update={"device_map": None}), torch.device("cpu"), load_config(spec))
    model.save_pretrained(folder)


def _with_layers(config: Any, layers: int) -> Any:
    """The configuration of the same model with its first so many decoder layers; the weights of the others are then
    left unread. Changes ``config``."""
    text = config.get_text_config(decoder=True)
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types)[:layers]
    return config


def load_tokenizer(spec: SubjectSpec) -> Any:
    """The tokenizer by itself. Raises UserError for a model that comes without one."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            _source(spec), revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except Exception as error:
        raise UserError(
            "a model comes with its tokenizer",
            f"{spec.model} ({first_line(error)})",
            "Save the tokenizer beside the weights",
        ) from error


def _source(spec: SubjectSpec) -> str:
    source = spec.model_source()
    if looks_like_folder(source):
        folder = Path(source).expanduser()
        _check_folder_exists(folder, "a model is a Hugging Face id, a packaged organism or a folder; this one")
        if not (folder / "config.json").is_file():
            raise UserError(
                "a model's folder holds config.json and safetensors weights", f"{folder} without config.json"
            )
        return str(folder)
    return source


def _check_folder_exists(folder: Path, what: str) -> None:
    if not folder.is_dir():
        raise UserError(f"{what} is a folder that exists", str(folder))


def _unknown_model(spec: SubjectSpec, error: Exception) -> UserError:
    if isinstance(error, ImportError):
        return UserError("the libraries a model needs are installed", f"{spec.model} ({first_line(error)})")
    if "trust_remote_code" in str(error):
        return UserError(
            "a model that brings code of its own runs it only when asked to",
            spec.model,
            "Read that code, then set trust_remote_code = true if you trust it",
        )
    if looks_like_folder(spec.model_source()):
        return UserError(
            "a model's folder holds a causal language model with safetensors weights",
            f"{spec.model} ({first_line(error)})",
            "Save it with save_pretrained",
        )
    return UserError(
        "a model's id exists on the Hugging Face hub, with safetensors weights, and can be downloaded",
        f"{spec.model} ({first_line(error)})",
        "Check the spelling and the network; log in with `hf auth login` if the model is gated",
    )


def _merge_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise missing_extra("adapters", "train", "peft") from error
    if looks_like_folder(adapter):
        _check_folder_exists(Path(adapter).expanduser(), "an adapter")
        adapter = str(Path(adapter).expanduser())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for names that transformers will drop
            return PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except Exception as error:
        raise UserError(
            "an adapter is a PEFT adapter trained for this model", f"{adapter} ({first_line(error)})"
        ) from error


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    ends = [getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id]
    flat = [i for end in ends for i in (end if isinstance(end, list) else [end])]
    return frozenset(int(i) for i in flat if i is not None)


def _fingerprint(spec: SubjectSpec, model: Any) -> str:
    commit = getattr(model.config, "_commit_hash", None) or ""
    folders = [
        _source(spec),
        spec.adapter,
        str(spec.resolve(spec.sae.path)) if spec.sae and spec.sae.path else None,
    ]
    return folder_fingerprint([Path(f).expanduser() for f in folders if f], commit)
