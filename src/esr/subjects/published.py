"""The subjects of arXiv 2602.06941 and the packaged organisms, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from esr.errors import UserError
from esr.subjects.spec import ORGANISMS, PACKAGED, SaeSpec, SubjectSpec

Variant = Literal["paper", "released", "bundled"]

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_WORKING_SPACE = 1.2


@dataclass(frozen=True)
class PresetSubject:
    """A subject with the settings it is measured under. The numbers are plain; sampling and calibration use
    them."""

    key: str
    """What a user types, for example ``gemma-2-9b/paper``."""
    variant: Variant
    """``paper``: as the paper's text says. ``released``: as its code does. ``bundled``: ships with this
    package."""
    spec: SubjectSpec
    n_layers: int
    d_model: int
    d_sae: int
    """Latents of the SAE."""
    parameters: int
    """Of the model, embeddings counted once where they are tied."""
    temperature: float
    repetition_penalty: float
    """Over prompt and response; 1 is off."""
    max_new_tokens: int
    prior_mean: float
    """Gaussian prior of the calibration, in the units of the boost."""
    prior_sd: float
    upper_bound: float
    """Largest boost calibration tries; the smallest is 0."""
    download_gb: float
    """Gigabytes (10^9 bytes) of weights: the model's 16-bit files and the SAE's. 0: nothing to download."""

    @property
    def memory_gb(self) -> float:
        """Estimated gigabytes (10^9 bytes): weights of model and SAE in their dtypes, and a fifth more to
        work in."""
        assert self.spec.sae is not None
        model = self.parameters * _BYTES[self.spec.dtype]
        sae = 2 * self.d_model * self.d_sae * _BYTES[self.spec.sae.dtype]
        return (model + sae) * _WORKING_SPACE / 1e9


@dataclass(frozen=True)
class _Published:
    key: str
    model: str
    release: str
    sae_id: str
    steer_layer: int
    read_layer: int
    n_layers: int
    d_model: int
    d_sae: int
    parameters: int
    released_penalty: float
    prior: tuple[float, float, float]
    """Mean, standard deviation, upper bound."""


_PAPER_PENALTY = 1.1

_PUBLISHED = (
    _Published(
        "llama-3.3-70b", "meta-llama/Llama-3.3-70B-Instruct",
        "goodfire-llama-3.3-70b-instruct", "layer_50",
        33, 50, 80, 8192, 65536, 70_553_706_496, 1.2, (7, 5, 100),
    ),
    _Published(
        "llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct",
        "goodfire-llama-3.1-8b-instruct", "layer_19",
        19, 19, 32, 4096, 65536, 8_030_261_248, 1.15, (10, 10, 50),
    ),
    _Published(
        "gemma-2-27b", "google/gemma-2-27b-it",
        "gemma-scope-27b-pt-res-canonical", "layer_22/width_131k/canonical",
        22, 22, 46, 4608, 131072, 27_227_128_320, 1.1, (1500, 1500, 5000),
    ),
    _Published(
        "gemma-2-9b", "google/gemma-2-9b-it",
        "gemma-scope-9b-pt-res-canonical", "layer_26/width_16k/canonical",
        26, 26, 42, 3584, 16384, 9_241_705_984, 1.1, (280, 280, 560),
    ),
    _Published(
        "gemma-2-2b", "google/gemma-2-2b-it",
        "gemma-scope-2b-pt-res-canonical", "layer_16/width_16k/canonical",
        16, 16, 26, 2304, 16384, 2_614_341_888, 1.1, (150, 75, 300),
    ),
)  # fmt: skip


def published_subjects() -> dict[str, PresetSubject]:
    """All presets by key: five published subjects in two variants each, and the packaged organisms.

    The variants differ in the repetition penalty: the paper's text says 1.1 throughout, its code does not.
    """
    presets = [_published(p, variant) for p in _PUBLISHED for variant in ("paper", "released")]
    presets += [_organism(name) for name in ORGANISMS]
    return {preset.key: preset for preset in presets}


def published_subject(key: str) -> PresetSubject:
    """The preset of that key. Raises UserError if there is none."""
    presets = published_subjects()
    if key not in presets:
        raise UserError(f"a preset is one of {', '.join(presets)}", key, "List them with `esr subjects`")
    return presets[key]


def _published(p: _Published, variant: Literal["paper", "released"]) -> PresetSubject:
    mean, sd, upper = p.prior
    return PresetSubject(
        key=f"{p.key}/{variant}",
        variant=variant,
        spec=SubjectSpec(
            model=p.model,
            dtype="bfloat16",
            device_map="auto" if p.parameters > 20e9 else None,
            sae=SaeSpec(release=p.release, id=p.sae_id),
            steer_layer=p.steer_layer,
            read_layer=p.read_layer,
        ),
        n_layers=p.n_layers,
        d_model=p.d_model,
        d_sae=p.d_sae,
        parameters=p.parameters,
        temperature=0.6,
        repetition_penalty=_PAPER_PENALTY if variant == "paper" else p.released_penalty,
        max_new_tokens=512,
        prior_mean=mean,
        prior_sd=sd,
        upper_bound=upper,
        download_gb=(2 * p.parameters + 4 * 2 * p.d_model * p.d_sae) / 1e9,
    )


ORGANISM_DIRECTIONS: dict[str, Any] = {
    "concreteness": "released",
    "concreteness_minimum": 10.0,  # leaves out dead latents, and those labelled with function words only
    "efficacy_boosts": [15.0, 25.0],  # about a third and a half of the mean residual norm
    "efficacy_drop": 40.0,
}
"""How directions are chosen on an organism: most latents of its SAE stand for no topic, so they are tried out."""


def _organism(name: str) -> PresetSubject:
    return PresetSubject(
        key=name,
        variant="bundled",
        spec=SubjectSpec(
            model=name,
            sae=SaeSpec(path=PACKAGED + "sae"),
            steer_layer=1,
            read_layer=1,
            labels=PACKAGED + "labels.json",
            lexicon=PACKAGED + "lexicon.json",
        ),
        n_layers=4,
        d_model=128,
        d_sae=1024,
        parameters=992_640,
        temperature=0.6,
        repetition_penalty=1.0,
        max_new_tokens=120,
        prior_mean=20.0,
        prior_sd=8.0,
        upper_bound=60.0,
        download_gb=0.0,
    )


def subject_rows() -> list[dict[str, Any]]:
    """One row per preset for a table: what it is, how it is sampled, and what it needs."""
    return [
        {
            "key": preset.key,
            "model": preset.spec.model,
            "layers": preset.n_layers,
            "steered": preset.spec.steer_layer,
            "read": preset.spec.read_layer,
            "SAE": _sae_name(preset.spec),
            "download GB": round(preset.download_gb, 1),
            "memory GB": round(preset.memory_gb, 1),
            "dtype": preset.spec.dtype,
            "temperature": preset.temperature,
            "repetition penalty": preset.repetition_penalty,
            "new tokens": preset.max_new_tokens,
            "prior": f"{preset.prior_mean:g} ± {preset.prior_sd:g}, at most {preset.upper_bound:g}",
        }
        for preset in published_subjects().values()
    ]


def _sae_name(spec: SubjectSpec) -> str:
    assert spec.sae is not None
    return "packaged" if spec.sae.path else f"{spec.sae.release} / {spec.sae.id}"
