"""Figures of the literature for the published subjects, to stand beside measured ones. Never for an organism.

All from McKenzie et al., *Endogenous Resistance to Activation Steering in Language Models*, arXiv 2602.06941: version 1
(February 2026), version 2 (June 2026) or the answers to its reviewers. Values are as printed there; none is computed
here. Differences in judge, prompts and repetition penalty are the reader's to weigh.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from esr.subjects.published import published_subjects
from esr.subjects.spec import SubjectSpec


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of the literature, shown beside the measured one."""

    condition: str
    """Key of the experiment, and what of it where it has several conditions; ``cross-judge`` stands with the agreement
    of judges."""
    quantity: str
    value: str
    """As printed there, for example ``3.8 %``."""
    source: str


_PAPER = "arXiv 2602.06941"
_V1, _V2, _REBUTTAL = f"{_PAPER} v1", f"{_PAPER} v2", f"{_PAPER}, answer to reviewers"
_MULTI, _ESR, _FIRST, _IMPROVED = "Multi-attempt rate", "ESR rate", "Mean first score", "Improvement rate"

_INCIDENCE = {  # model: responses, multi-attempt rate, ESR rate
    "meta-llama/Llama-3.3-70B-Instruct": ("4,877", "7.4 %", "3.8 %"),
    "meta-llama/Llama-3.1-8B-Instruct": ("4,512", "≤ 1.1 %", "< 1 %"),
    "google/gemma-2-27b-it": ("4,914", "1.1 %", "0.7 %"),
    "google/gemma-2-9b-it": ("4,668", "1.0 %", "0.5 %"),
    "google/gemma-2-2b-it": ("4,948", "0.1 %", "0.1 %"),
}

_FURTHER = {
    "meta-llama/Llama-3.3-70B-Instruct": (
        ("incidence", _FIRST, "26.3", f"{_V1}, section 3.4"),
        ("no-steering", _MULTI, "0 %", _V1),
        ("no-steering", _FIRST, "87.8 to 91.8 over the five subjects", _V1),
        ("boost-sweep", f"{_MULTI}, peak", "2.7 % near -0.3 sd", f"{_V1}, section 3.2"),
        ("boost-sweep", f"{_IMPROVED}, peak", "83 % near -1 sd", f"{_V1}, section 3.2"),
        ("boost-sweep", f"{_ESR}, peak", "1.0 % near -0.3 sd", f"{_V1}, section 3.2"),
        ("meta-prompts: self-monitor", _MULTI, "31.7 %", f"{_V1}, section 3.3"),
        ("meta-prompts: self-monitor", _ESR, "14.8 %", f"{_V1}, section 3.3"),
        ("otd-discovery", "Detectors", "26", f"{_V1}, section 3.4"),
        ("otd-discovery", "Cohen's d", "0.85 to -0.76", _V1),
        ("otd-ablation", _MULTI, "5.5 % (-25 %)", f"{_V1}, section 3.4"),
        ("otd-ablation", _ESR, "2.8 %", f"{_V1}, section 3.4"),
        ("otd-ablation", _FIRST, "27.4", f"{_V1}, section 3.4"),
        ("random-ablation", "Responses", "14,450 in 3 sets of 26 latents", _V1),
        ("random-ablation", _MULTI, "7.9 %", _V1),
        ("random-ablation", _ESR, "4.2 %", _V1),
        ("otd-ablation: held-out prompts, not ablated", _MULTI, "9.6 % (about 239 responses)", _PAPER),
        ("otd-ablation: held-out prompts, not ablated", _ESR, "5.0 %", _PAPER),
        ("otd-ablation: held-out prompts, ablated", _MULTI, "5.9 % (about 239 responses)", _PAPER),
        ("otd-ablation: held-out prompts, ablated", _ESR, "3.8 %", _PAPER),
        ("activations", "Detectors, off-topic / baseline", "4.4 x (.0119 / .0027)", _V1),
        ("activations", "Detectors, after the correction / baseline", "2.1 x", _V1),
        ("cross-judge", "Agreement on multi-attempt", "> 95 %; 90-96 % in later text", _PAPER),
        ("cross-judge", "Agreement on the direction of change", "93-97 %", _PAPER),
        ("prefill", f"{_ESR} after 500, 1100, 1500, 2000 characters", "7.0, 13.5, 11.3, 11.9 %", _V2),
        ("prefill", _IMPROVED, "about 95 %, about 50 % while steered", _V2),
        ("matched-prefix", "Natural / generic prefix", "about 2.1 x", _V2),
        ("vectors", _ESR, "3.6 % (62 vectors)", _REBUTTAL),
    ),
    "meta-llama/Llama-3.1-8B-Instruct": (
        ("fine-tuning", _MULTI, "rises with the share of self-correction examples", f"{_V1}, section 3.5"),
        ("fine-tuning", _IMPROVED, "flat", f"{_V1}, section 3.5"),
    ),
}


def published_figures(spec: SubjectSpec) -> tuple[PublishedFigure, ...]:
    """The published figures of a subject, by its model's id on the Hugging Face hub.

    Where another layer is steered than there, every source says so. Empty for other models, folders, models with an
    adapter, and always for the organisms.
    """
    wanted = _comparable(spec.model)
    model = next((model for model in _INCIDENCE if _comparable(model) == wanted), None)
    if model is None or spec.adapter is not None:
        return ()
    responses, multi, esr = _INCIDENCE[model]
    first = (("Responses", responses), (_MULTI, multi), (_ESR, esr))
    figures = [PublishedFigure("incidence", quantity, value, f"{_V1}, section 3.1") for quantity, value in first]
    figures += [PublishedFigure(*figure) for figure in _FURTHER.get(model, ())]
    layer = next(p.spec.steer_layer for p in published_subjects().values() if p.spec.model == model)
    if spec.steer_layer != layer:
        figures = [replace(f, source=f"{f.source} (layer {layer} steered)") for f in figures]
    return tuple(figures)


def _comparable(model: str) -> str:
    """The hub ignores case, and knows Llama models with and without ``Meta-``."""
    return model.lower().replace("/meta-llama-", "/llama-")
