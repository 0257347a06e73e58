"""Do the scores support an answer? The honest end of a search that may have nothing to find."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from esr.studies.calibration.rounds import mean

STANDARD_ERRORS = 3.0


@dataclass
class Evidence:
    """The scores of one direction by boost, and how many generations were answered at all."""

    scores: dict[float, list[float]] = field(default_factory=dict)
    generations: int = 0

    def add(self, boost: float, scores: tuple[float, ...], generations: int) -> None:
        self.generations += generations
        if scores:
            self.scores.setdefault(boost, []).extend(scores)

    def side(self, boost: float, *, above: bool) -> list[float]:
        """Scores measured at boosts >= ``boost`` (above) or <= it."""
        return [s for b, ss in sorted(self.scores.items()) if (b >= boost if above else b <= boost) for s in ss]

    def contradiction(self, boost: float, target: float) -> str:
        """Why the threshold cannot be at ``boost``; empty when nothing speaks against it.

        Scores fall with the boost, so those measured at boosts >= the threshold average at most the target, and those
        at boosts <= it at least the target. The answer is contradicted when either average is on the wrong side by
        more than three standard errors, taken as for the widest spread that scores of this mean can have
        (all 0 or 100: sd = sqrt(target * (100 - target))), because few scores tell little about their own spread.
        """
        for above in (True, False):
            scores = self.side(boost, above=above)
            if not scores:
                continue
            slack = STANDARD_ERRORS * math.sqrt(target * (100 - target) / len(scores))
            if above and mean(scores) > target + slack:
                return f"mean score {mean(scores):.0f} at boosts from {boost:.4g} up stays above the target {target:g}"
            if not above and mean(scores) < target - slack:
                return (
                    f"mean score {mean(scores):.0f} at boosts up to {boost:.4g} is already below the target {target:g}"
                )
        return ""
