"""Efficacy gate: a direction must be able to move the unsteered score, or its trials test nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Efficacy:
    """What the gate found for one direction."""

    passed: bool
    largest_drop: float
    """Unsteered mean score minus the lowest mean score over the boosts tried; NaN when nothing was scored."""
    at_boost: float
    """The boost with the lowest mean score."""


def efficacy(scores: Mapping[float, Sequence[float]], unsteered: float, required_drop: float) -> Efficacy:
    """Judge one direction by its first-attempt scores (0-100) at each boost tried.

    A boost without any scored response says nothing. The direction passes when the mean at some boost lies at least
    ``required_drop`` below ``unsteered``.
    """
    means = {boost: float(np.mean(values)) for boost, values in scores.items() if len(values)}
    if not means:
        return Efficacy(False, float("nan"), float("nan"))
    boost = min(means, key=lambda b: (means[b], b))
    drop = unsteered - means[boost]
    return Efficacy(drop >= required_drop, drop, boost)
