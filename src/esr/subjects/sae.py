"""Loading an SAE through SAELens, and finding the layer it belongs to."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

from esr.errors import UserError
from esr.subjects.latents import LatentReader
from esr.subjects.spec import SubjectSpec

_OUTPUT = re.compile(r"blocks\.(\d+)\.(?:hook_resid_post|hook_out)|(?:.*\.)?(?:layers|h)\.(\d+)")
_INPUT = re.compile(r"blocks\.(\d+)\.hook_resid_pre")


def load_reader(spec: SubjectSpec, device: str = "cpu") -> LatentReader:
    """Load the SAE the spec names, onto ``device``.

    Raises UserError for an unknown release, id or folder, and for what ``LatentReader`` refuses.
    """
    if spec.sae is None:
        raise UserError(
            "a subject whose latents are used names an SAE", "none", "Set sae.path, or sae.release and sae.id"
        )
    with warnings.catch_warnings():
        # SAELens warns about its own model wrapper and its release names; what matters here is checked below.
        warnings.simplefilter("ignore", UserWarning)
        logging.getLogger("sae_lens").setLevel(logging.ERROR)
        if spec.sae.path:
            sae = _from_folder(spec.resolve(spec.sae.path), device, spec.sae.dtype)
        else:
            sae = _from_release(spec, device)
    return LatentReader(sae.eval().requires_grad_(False))


def _from_release(spec: SubjectSpec, device: str) -> Any:
    from sae_lens import SAE

    assert spec.sae is not None
    try:
        return SAE.from_pretrained(spec.sae.release, spec.sae.id, device=device, dtype=spec.sae.dtype)
    except Exception as error:
        raise UserError(
            "an SAE's release and id are in SAELens' directory and can be downloaded",
            f"{spec.sae.release} / {spec.sae.id} ({first_line(error)})",
            "See SAELens' table of pretrained SAEs; log in with `hf auth login` if this one is gated",
        ) from error


def _from_folder(folder: Path, device: str, dtype: str) -> Any:
    if not folder.is_dir():
        raise UserError("an SAE's path is a folder that exists", str(folder))
    missing = [name for name in ("cfg.json", "sae_weights.safetensors") if not (folder / name).is_file()]
    if missing:
        raise UserError(
            "an SAE's folder holds cfg.json and sae_weights.safetensors, as SAELens saves them",
            f"{folder} lacks {' and '.join(missing)}",
        )
    from sae_lens import SAE, BatchTopKTrainingSAE
    from sae_lens.loading.pretrained_sae_loaders import get_sae_lens_config_from_disk
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    try:
        name = get_sae_lens_config_from_disk(folder).get("architecture", "standard")
        training_class = SAE_TRAINING_CLASS_REGISTRY.get(name, (None,))[0]
        if training_class and issubclass(training_class, BatchTopKTrainingSAE):
            return _inference_form(training_class.load_from_disk(folder, device=device, dtype=dtype))
        if name in SAE_CLASS_REGISTRY:
            return SAE.load_from_disk(folder, device=device, dtype=dtype)
    except Exception as error:
        raise UserError(
            "an SAE's folder can be read by SAELens",
            f"{folder} ({first_line(error)})",
            "Save it again with SAELens",
        ) from error
    raise UserError("an SAE's architecture is known to SAELens", f"{name} in {folder}")


def _inference_form(training: Any) -> Any:
    """A BatchTopK SAE as SAELens saves it for inference: JumpReLU with the learned threshold.

    Its training form lets positions of a batch compete, so that an activation would depend on its neighbours.
    """
    from sae_lens import SAE

    sae = SAE.from_dict(training.cfg.get_inference_sae_cfg_dict())
    weights = dict(training.state_dict())
    training.process_state_dict_for_saving_inference(weights)
    sae.load_state_dict(weights)
    return sae


def read_layer_of(reader: LatentReader, spec: SubjectSpec) -> int:
    """The layer whose output the SAE reads: the spec's, else the one in the SAE's metadata, else the
    steered one.

    Raises UserError for an SAE that was not trained on the residual stream between layers.
    """
    hook = reader.hook_name
    trained = spec.steer_layer if hook is None else residual_layer(hook)
    return trained if spec.read_layer is None else spec.read_layer


def residual_layer(hook_name: str) -> int:
    """The 0-based layer whose output a hook names, in TransformerLens' or Hugging Face's words.

    Raises UserError for any other place (attention heads, MLPs, embeddings).
    """
    if match := _OUTPUT.fullmatch(hook_name):
        return int(match[1] or match[2])
    if (match := _INPUT.fullmatch(hook_name)) and int(match[1]) > 0:
        return int(match[1]) - 1
    raise UserError(
        "an SAE reads the residual stream as it leaves a decoder layer",
        f"an SAE trained on {hook_name}",
        "Choose an SAE of the residual stream (hook_resid_post)",
    )


def first_line(error: Exception) -> str:
    """An exception as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
