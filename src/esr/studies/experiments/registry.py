"""Experiment keys and the conditions they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from esr.errors import UserError
from esr.studies.conditions import Condition
from esr.studies.experiments import boost_sweep, incidence, no_steering


@dataclass(frozen=True)
class Experiment:
    """One row of METHOD's table of experiments."""

    key: str
    question: str
    conditions: Callable[[], list[Condition]]


EXPERIMENTS = {
    key: Experiment(key, module.QUESTION, module.conditions)
    for key, module in {
        "no-steering": no_steering,
        "incidence": incidence,
        "boost-sweep": boost_sweep,
    }.items()
}


def experiment(key: str) -> Experiment:
    """Look an experiment up. Raises UserError for an unknown key."""
    if key not in EXPERIMENTS:
        raise UserError("an experiment has a known key", key, f"Known: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[key]
