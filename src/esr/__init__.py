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
    from esr.studies.study import Study as Study
    from esr.subjects.chat import chat_ids as chat_ids
    from esr.subjects.loading import Subject as Subject
    from esr.subjects.loading import load_subject as load_subject
    from esr.subjects.spec import SubjectSpec as SubjectSpec

_HOMES = {
    "Add": "steering.interventions", "Clamp": "steering.interventions", "Condition": "studies.conditions",
    "Direction": "steering.interventions", "HFEngine": "steering.hf", "Request": "steering.engine",
    "Response": "steering.engine", "Sampling": "steering.engine", "Schedule": "steering.interventions",
    "SteeringError": "errors", "Study": "studies.study", "Subject": "subjects.loading",
    "SubjectSpec": "subjects.spec", "UserError": "errors", "chat_ids": "subjects.chat",
    "load_subject": "subjects.loading", "summarise": "analysis.metrics",
}  # fmt: skip

__all__ = [*_HOMES, "open"]


def open(folder: str) -> Study:
    """Open a study for reading: ``esr.open("study").trials`` is a pandas frame."""
    from esr.studies.study import Study

    return Study.open(folder)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"esr.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'esr' has no attribute {name!r}")
