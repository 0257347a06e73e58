"""At what strength? The same grid at other boosts: multiples of each direction's own threshold, or the same boost for
all directions, so many standard deviations from the mean threshold (published: 8 levels from -3 to +3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from esr.studies.conditions import Condition
from esr.studies.experiments.registry import Boost, Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.lab import Lab


class SweepSettings(Settings):
    """``[experiment] boost-sweep``."""

    by: Literal["both", "factor", "level"] = "both"
    """Sweep multiples of each direction's threshold, levels in standard deviations, or both."""
    factors: tuple[Boost, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    """Multiples of each direction's own threshold."""
    levels: tuple[Boost, ...] = (-3.0, -2.14, -1.29, -0.43, 0.43, 1.29, 2.14, 3.0)
    """Standard deviations from the mean threshold. A level whose boost is not above 0 is left out, and
    all are when the thresholds do not differ."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for given in (self.factors, self.levels):
            if len({f"{value:g}" for value in given}) < len(given):
                raise ValueError("factors, and levels, differ in their first six digits: each names a condition")
        return self


def conditions(lab: Lab, settings: SweepSettings) -> list[Condition]:
    """One condition per factor and per level."""
    by_factor = [Condition(f"boost x{factor:g}", boost_factor=factor) for factor in settings.factors]
    by_level = [Condition(f"boost {level:+g} sd", boost_level=level) for level in settings.levels]
    by_level = [c for c in by_level if lab.boost(c, 0) > 0 and len(set(lab.thresholds)) > 1]
    return by_factor * (settings.by != "level") + by_level * (settings.by != "factor")


def _arms(settings: SweepSettings) -> int:
    return len(settings.factors) * (settings.by != "level") + len(settings.levels) * (settings.by != "factor")


EXPERIMENT = Experiment(
    "boost-sweep",
    "How does resistance depend on the strength of steering?",
    conditions,
    _arms,
    settings=SweepSettings,
    figure="sweep",
)
