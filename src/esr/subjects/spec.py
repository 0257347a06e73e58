"""The subject of a study as one validated record: model, SAE, layers and chat template."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from esr.errors import UserError

Dtype = Literal["float32", "bfloat16", "float16"]

ORGANISMS = ("organism", "organism-untrained-recovery", "organism-naive")
"""Models that ship with the package."""

PACKAGED = "<packaged>/"
"""A path that begins so lies in the folder of the packaged model the spec names."""

_NOT_DETERMINING = {"labels", "lexicon", "device", "device_map"}


class SaeSpec(BaseModel):
    """A sparse autoencoder, by SAELens release and id, or as a folder saved by SAELens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str | None = None
    """SAELens release name, for example ``gemma-scope-9b-pt-res-canonical``; needs ``id``."""
    id: str | None = None
    """The SAE's id within the release, for example ``layer_26/width_16k/canonical``."""
    path: str | None = None
    """Folder that holds SAELens' ``cfg.json`` and ``sae_weights.safetensors``."""
    dtype: Dtype = "float32"
    """The SAE computes in this dtype, whatever the model's."""

    @model_validator(mode="after")
    def _one_source(self) -> SaeSpec:
        by_release = bool(self.release) and bool(self.id)
        if bool(self.path) == by_release or bool(self.release) != bool(self.id):
            raise UserError(
                "an SAE is named by release and id, or by path, and not by both",
                f"release={self.release!r}, id={self.id!r}, path={self.path!r}",
            )
        return self


class SubjectSpec(BaseModel):
    """Everything that says which subject is measured. Nothing is loaded or looked up until
    ``load_subject``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Hugging Face id, a folder, or the name of a packaged organism."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face id."""
    dtype: Dtype = "float32"
    """Weights and residual stream. Same tokens in any batch are promised for float32 only."""
    device: str = "auto"
    """``auto``: CUDA if there is a device, else the CPU."""
    device_map: str | None = None
    """Spread the model over devices, for example ``auto`` (needs accelerate); ``device`` is then ignored."""
    adapter: str | None = None
    """PEFT adapter, id or folder, merged into the weights after loading (extra ``train``)."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless asked for."""
    sae: SaeSpec | None = None
    steer_layer: int
    """0-based decoder layer whose output is steered."""
    read_layer: int | None = None
    """0-based decoder layer whose output the SAE reads; default: the layer in the SAE's metadata, else
    steer_layer."""
    system: str = ""
    """System prompt; empty: none."""
    template: str = "tokenizer"
    """``tokenizer``: the tokenizer's own chat template. Else a text with ``{prompt}`` and, if there is a
    system prompt, ``{system}``."""
    labels: str | None = None
    """JSON file {latent: label}. Labels are untrusted text."""
    lexicon: str | None = None
    """JSON word list for the rule judge."""

    @model_validator(mode="after")
    def _consistent(self) -> SubjectSpec:
        if not self.model.strip():
            raise UserError("a subject names its model", "an empty string")
        for name in ("steer_layer", "read_layer"):
            layer = getattr(self, name)
            if layer is not None and layer < 0:
                raise UserError(f"{name} counts from 0", layer)
        if self.template != "tokenizer":
            if "{prompt}" not in self.template:
                raise UserError(
                    'a template is "tokenizer" or contains {prompt}',
                    repr(self.template),
                    "Add {prompt} to it",
                )
            if self.system and "{system}" not in self.template:
                raise UserError(
                    "a template string used with a system prompt contains {system}",
                    repr(self.template),
                    "Add {system} to it, or leave the system prompt empty",
                )
        for name, path in (
            ("sae.path", self.sae.path if self.sae else None),
            ("labels", self.labels),
            ("lexicon", self.lexicon),
        ):
            if path and path.startswith(PACKAGED) and self.model not in ORGANISMS:
                raise UserError(
                    f"{PACKAGED} refers to a packaged model's folder, one of {', '.join(ORGANISMS)}",
                    f"{name}={path!r} with model={self.model!r}",
                )
        return self

    def describe(self) -> dict[str, Any]:
        """All settings as plain data."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of every setting that determines responses.

        Labels, lexicon and device are no part of it. Weights enter by name: ``Subject.fingerprint`` tells
        whether a folder's files changed.
        """
        settings = {k: v for k, v in self.describe().items() if k not in _NOT_DETERMINING}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def model_source(self) -> str:
        """What to hand to ``from_pretrained``: the packaged folder of an organism, else the model as
        given."""
        return str(packaged_folder(self.model)) if self.model in ORGANISMS else self.model

    def resolve(self, path: str) -> Path:
        """A path of this spec, with the packaged folder filled in."""
        if path.startswith(PACKAGED):
            return packaged_folder(self.model) / path[len(PACKAGED) :]
        return Path(path).expanduser()

    def labels_path(self) -> Path | None:
        """Where the labels lie, if the spec names some."""
        return self.resolve(self.labels) if self.labels else None

    def lexicon_path(self) -> Path | None:
        """Where the rule judge's word list lies, if the spec names one."""
        return self.resolve(self.lexicon) if self.lexicon else None


def packaged_folder(name: str) -> Path:
    """Folder of a model that ships with the package.

    Raises UserError if the installation lacks it.
    """
    folder = Path(str(files("esr") / "organism" / "weights" / name))
    if not folder.is_dir():
        raise UserError(
            "a packaged model lies in the installed package",
            f"no folder for {name}",
            "Install the package again, or train the organism with `esr organism train`",
        )
    return folder


def looks_like_folder(name: str) -> bool:
    """Whether a model name can only be a folder: it is one, or no ``owner/name`` of the Hugging Face hub."""
    return Path(name).expanduser().exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)
