"""Is it caused by steering? The same grid, steering off."""

from esr.studies.conditions import Condition

QUESTION = "Does the subject correct itself without steering?"


def conditions() -> list[Condition]:
    """One condition: the same directions, prompts and seeds with a boost of 0."""
    return [Condition("no-steering", boost_factor=0.0)]
