"""Published figures stand beside the published subjects, by model, and beside nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from esr.studies.experiments.registry import experiments
from esr.subjects.published import published_subjects
from esr.subjects.published_figures import published_figures
from esr.subjects.spec import ORGANISMS, SubjectSpec

INCIDENCE = {  # typed again from the paper's figures: responses, multi-attempt, ESR
    "llama-3.3-70b": ("4,877", "7.4 %", "3.8 %"),
    "llama-3.1-8b": ("4,512", "≤ 1.1 %", "< 1 %"),
    "gemma-2-27b": ("4,914", "1.1 %", "0.7 %"),
    "gemma-2-9b": ("4,668", "1.0 %", "0.5 %"),
    "gemma-2-2b": ("4,948", "0.1 %", "0.1 %"),
}


def of(preset: str, **changes: Any) -> dict[tuple[str, str], str]:
    spec = published_subjects()[preset].spec
    return {(f.condition, f.quantity): f.value for f in published_figures(spec.model_copy(update=changes))}


@pytest.mark.parametrize("name", INCIDENCE)
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_incidence_of_every_published_subject(name: str, variant: str) -> None:
    figures = of(f"{name}/{variant}")
    found = [figures["incidence", quantity] for quantity in ("Responses", "Multi-attempt rate", "ESR rate")]
    assert tuple(found) == INCIDENCE[name]


def test_the_experiments_of_the_largest() -> None:
    figures = of("llama-3.3-70b/paper")
    assert figures["meta-prompts: self-monitor", "Multi-attempt rate"] == "31.7 %"
    assert figures["meta-prompts: self-monitor", "ESR rate"] == "14.8 %"
    assert figures["otd-ablation", "ESR rate"] == "2.8 %"
    assert figures["random-ablation", "ESR rate"] == "4.2 %"
    assert figures["no-steering", "Multi-attempt rate"] == "0 %"
    assert figures["vectors", "ESR rate"] == "3.6 % (62 vectors)"
    assert figures["otd-ablation: held-out prompts, not ablated", "ESR rate"] == "5.0 %"
    assert figures["otd-ablation: held-out prompts, ablated", "ESR rate"] == "3.8 %"
    assert {c for c, _ in of("gemma-2-9b/paper")} == {"incidence"}
    assert {c for c, _ in of("llama-3.1-8b/paper")} == {"incidence", "fine-tuning"}


def test_every_figure_has_its_source_once() -> None:
    for preset in published_subjects().values():
        figures = published_figures(preset.spec)
        assert all("arXiv 2602.06941" in f.source and f.value and f.quantity for f in figures)
        assert len({(f.condition, f.quantity) for f in figures}) == len(figures)


@pytest.mark.parametrize("organism", ORGANISMS)
def test_never_for_an_organism(organism: str) -> None:
    assert published_figures(published_subjects()[organism].spec) == ()


def test_by_model_and_not_by_preset() -> None:
    own = SubjectSpec(model="meta-llama/Meta-Llama-3.3-70B-instruct", steer_layer=33)
    assert published_figures(own) == published_figures(published_subjects()["llama-3.3-70b/released"].spec)
    for model in ("meta-llama/Llama-3.3-70B", "/models/gemma-2-9b-it", "someone/gemma-2-9b-it", "gemma-2-9b-it"):
        assert published_figures(SubjectSpec(model=model, steer_layer=26)) == ()
    assert of("gemma-2-9b/paper", adapter="some/adapter") == {}


def test_another_layer_is_said() -> None:
    spec = published_subjects()["llama-3.3-70b/paper"].spec
    assert not any("steered)" in f.source for f in published_figures(spec))
    other = published_figures(spec.model_copy(update={"steer_layer": 50}))
    assert other
    assert all(f.source.endswith(" (layer 33 steered)") for f in other)


@pytest.mark.parametrize("name", published_subjects())
def test_every_figure_stands_with_an_experiment_or_with_the_judges(name: str) -> None:
    """A figure under another name would be shown nowhere."""
    places = {*experiments(), "fine-tuning", "cross-judge", "vectors"}  # vectors: incidence of a vectors file
    assert {f.condition.partition(":")[0] for f in published_figures(published_subjects()[name].spec)} <= places
