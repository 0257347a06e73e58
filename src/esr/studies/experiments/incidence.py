"""How often? Every direction at its own threshold, on its own prompts."""

from esr.studies.conditions import Condition

QUESTION = "How often does the subject notice and recover while it is steered?"


def conditions() -> list[Condition]:
    """One condition: steering at the calibrated threshold."""
    return [Condition("incidence")]
