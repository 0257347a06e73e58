"""What an experiment is, and which there are: every module of this folder that has an ``EXPERIMENT``, those that other
packages have as entry points of the group ``esr.experiments``, and those given to ``register``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from esr.errors import UserError
from esr.studies.conditions import Condition
from esr.studies.mistakes import meant

if TYPE_CHECKING:
    from pathlib import Path

    from esr.studies.config import StudyConfig
    from esr.studies.lab import Lab

ALL = "all"
"""Stands for every experiment that is part of one run."""
FIRST = (
    "incidence", "no-steering", "boost-sweep", "meta-prompts",
    "otd-discovery", "otd-ablation", "random-ablation", "single-ablation", "activations",
    "prompt-only", "response-only", "prefill", "steer-then-release", "matched-prefix", "forced-restart", "branch",
)  # fmt: skip
"""The order in which they are shown and run; others follow by key. Each comes after what it needs."""


Share = Annotated[float, Field(gt=0, lt=1)]
"""A share of the longest response."""
Boost = Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of an experiment's own settings: the table ``[experiment] KEY = {...}`` of study.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Experiment:
    """One row of METHOD's table of experiments: trials under some conditions, or work that reads trials."""

    key: str
    question: str
    conditions: Callable[[Lab, Any], Sequence[Condition]] | None = None
    """(lab, settings) -> conditions to measure. Must not depend on anything but the lab's data and seed."""
    arms: Callable[[Any], int] = field(default=lambda _: 0)
    """settings -> how many conditions of at most the whole grid, for the plan."""
    per_episode: Callable[[Any], int] = field(default=lambda _: 0)
    """settings -> how many of these have at most one trial for each steered response with an explicit restart."""
    whole_grid: bool = False
    """Whether every condition runs the whole grid, so that the plan's count is exact."""
    counted: Callable[[Path, StudyConfig, Any], int] | None = None
    """(study's folder, its settings, own settings) -> ``arms``, where files or the subject decide."""
    reads: Callable[[Path, StudyConfig, Any], int] | None = None
    """(study's folder, its settings, own settings) -> responses that ``work`` generates, which no judge sees."""
    work: Callable[[Lab, Any], Any] | None = None
    """(lab, settings) -> a result as plain data, stored under the key. Done once, before the conditions."""
    needs: tuple[str, ...] = ()
    """Experiments whose trials or result this one reads; they run first."""
    settings: type[Settings] = Settings
    figure: Literal["forest", "sweep", "detectors", "courses", "dose", "none"] = "forest"
    """How the report draws it."""
    in_all: bool = True
    """Whether ``all`` includes it."""
    latents: bool = False
    """Whether it reads or clamps latents and so needs an SAE."""
    check: Callable[[Path, StudyConfig, Any], None] | None = None
    """(study's folder, its settings, own settings): raises UserError, before anything is loaded, for files and prompts
    the experiment cannot work with."""

    templates: Callable[[Path, StudyConfig, Any], Mapping[str, str]] | None = None
    """(study's folder, its settings, own settings) -> what it asks instead of the bare prompt, by name: before anything
    is generated it is checked that every prompt fits into it."""

    def arms_of(self, folder: Path, config: StudyConfig, settings: Any) -> int:
        """How many conditions of at most the whole grid it has in a study."""
        return self.arms(settings) if self.counted is None else self.counted(folder, config, settings)


_REGISTERED: dict[str, Experiment] = {}


def register(experiment: Experiment) -> Experiment:
    """Make an experiment known for as long as this process runs: for notebooks and scripts. Returns it.

    Raises UserError for a key that is taken.
    """
    taken = experiment.key == ALL or (experiment.key in experiments() and experiment.key not in _REGISTERED)
    if taken:
        raise UserError("an experiment has a key of its own", experiment.key)
    _REGISTERED[experiment.key] = experiment
    experiments.cache_clear()
    return experiment


def unregister(experiment: Experiment) -> None:
    """Forget an experiment given to ``register``."""
    _REGISTERED.pop(experiment.key, None)
    experiments.cache_clear()


@cache
def experiments() -> Mapping[str, Experiment]:
    """All experiments by key, each after those it needs."""
    package = import_module("esr.studies.experiments")
    modules = [import_module(f"{package.__name__}.{m.name}") for m in iter_modules(package.__path__)]
    found = {m.EXPERIMENT.key: m.EXPERIMENT for m in modules if hasattr(m, "EXPERIMENT")}
    for point in entry_points(group="esr.experiments"):
        experiment = point.load()
        found[experiment.key] = experiment
    found |= _REGISTERED
    first = [key for key in FIRST if key in found]
    return {key: found[key] for key in _in_order(found, [*first, *sorted(found.keys() - set(first))])}


def experiment(key: str) -> Experiment:
    """Look an experiment up. Raises UserError for an unknown key."""
    if key not in experiments():
        raise UserError("an experiment has a known key", key, meant(key, [*experiments(), ALL]))
    return experiments()[key]


def wanted(keys: Iterable[str], *, sae: bool = True) -> list[Experiment]:
    """The experiments of these keys and what they need, in the order they run. ``all`` stands for all of one run;
    without an ``sae``, for those that need none.

    Raises UserError for an unknown key, none, or one that needs an SAE where there is none.
    """
    whole = [e.key for e in experiments().values() if e.in_all and (sae or not e.latents)]
    named = [name for key in keys for name in (whole if key == ALL else [experiment(key).key])]
    if not named:
        raise UserError("a run has at least one experiment", None)
    needed = set(_in_order(experiments(), named))
    chosen = [e for e in experiments().values() if e.key in needed]
    if not sae and (lacking := [e.key for e in chosen if e.latents]):
        raise UserError("an experiment on latents has an SAE ([subject.sae])", ", ".join(lacking), "Leave it out")
    return chosen


def _in_order(found: Mapping[str, Experiment], keys: Iterable[str]) -> list[str]:
    """The keys and all they need, each after its needs."""
    done: dict[str, None] = {}

    def add(key: str, above: tuple[str, ...]) -> None:
        if key in above:
            raise UserError("experiments do not need each other in a circle", " -> ".join((*above, key)))
        for need in found[key].needs:
            add(need, (*above, key))
        done.setdefault(key)

    for key in keys:
        add(key, ())
    return list(done)
