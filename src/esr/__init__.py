"""esr: measure endogenous steering resistance.

Names are imported when first used, so ``import esr`` loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esr.analysis.metrics import summarise as summarise
    from esr.errors import SteeringError as SteeringError
    from esr.errors import UserError as UserError
    from esr.steering.engine import Request as Request
    from esr.steering.engine import Response as Response
    from esr.steering.engine import Sampling as Sampling
    from esr.steering.hf import HFEngine as HFEngine
    from esr.steering.interventions import Add as Add
    from esr.steering.interventions import Clamp as Clamp
    from esr.steering.interventions import Direction as Direction
    from esr.steering.interventions import Schedule as Schedule
    from esr.studies.conditions import Condition as Condition
    from esr.studies.conditions import Start as Start
    from esr.studies.experiments.registry import Experiment as Experiment
    from esr.studies.study import Study as Study
    from esr.subjects.chat import chat_ids as chat_ids
    from esr.subjects.loading import Subject as Subject
    from esr.subjects.loading import load_subject as load_subject
    from esr.subjects.spec import SubjectSpec as SubjectSpec

_HOMES = {
    "Add": "steering.interventions", "chat_ids": "subjects.chat", "Clamp": "steering.interventions",
    "Condition": "studies.conditions", "Direction": "steering.interventions",
    "Experiment": "studies.experiments.registry", "HFEngine": "steering.hf", "load_subject": "subjects.loading",
    "Request": "steering.engine", "Response": "steering.engine", "Sampling": "steering.engine",
    "Schedule": "steering.interventions", "Start": "studies.conditions", "SteeringError": "errors",
    "Study": "studies.study", "Subject": "subjects.loading", "SubjectSpec": "subjects.spec",
    "summarise": "analysis.metrics", "UserError": "errors",
}  # fmt: skip

__all__ = [*_HOMES, "open", "run"]


def open(folder: str) -> Study:
    """Open a study for reading: ``esr.open("study").trials`` is a pandas frame."""
    from esr.studies.study import Study

    return Study.open(folder)


def run(folder: str, *experiments: str) -> Study:
    """Run what is missing of a study's experiments (default: those of its study.toml), and open it.

    Raises UserError as ``esr run`` reports them.
    """
    from pathlib import Path

    from esr.studies.config import read_config
    from esr.studies.progress import Lines
    from esr.studies.runner import run_study

    config = read_config(Path(folder))
    run_study(Path(folder), config, experiments or config.experiments, Lines(print))
    return open(folder)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"esr.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'esr' has no attribute {name!r}")
