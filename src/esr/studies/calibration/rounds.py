"""One round of probes: what is still to be told, and what has been, whatever the order it came in."""

from __future__ import annotations

import math
from collections.abc import Sequence

from esr.errors import UserError
from esr.studies.calibration.records import Probe


class Round:
    """Collects the scores of a list of probes. The order of the tells leaves no trace."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self.probes = list(probes)
        self._told: dict[Probe, tuple[float, ...]] = {}
        self._asked = frozenset(self.probes)

    @property
    def open(self) -> list[Probe]:
        """The probes not told yet, in the order they were asked in."""
        return [p for p in self.probes if p not in self._told]

    @property
    def complete(self) -> bool:
        return len(self._told) == len(self.probes)

    def tell(self, probe: Probe, scores: Sequence[float]) -> None:
        """Store the scores (0-100 each, at most ``probe.repeats``, possibly none) of one probe of this round.

        Raises UserError for a probe that is not asked in this round, one told before, and for impossible scores.
        """
        if probe not in self._asked:
            raise UserError("only probes of the current round can be told", probe, "Tell the probes that ask() returns")
        if probe in self._told:
            raise UserError("a probe is told once", probe)
        if len(scores) > probe.repeats:
            raise UserError("a probe has at most `repeats` scores", f"{len(scores)} for {probe}")
        if not all(0 <= s <= 100 for s in scores):  # also false for NaN
            raise UserError("a score lies in 0..100", list(scores), "Leave unscored generations out")
        self._told[probe] = tuple(sorted(float(s) for s in scores))

    def told(self) -> list[tuple[Probe, tuple[float, ...]]]:
        """Every probe in the order asked, with its scores sorted. Only of a complete round."""
        return [(p, self._told[p]) for p in self.probes]


def mean(values: Sequence[float]) -> float:
    """Exactly rounded mean, so that it does not depend on the order. Raises ZeroDivisionError when empty."""
    return math.fsum(values) / len(values)


def six_digits(value: float) -> float:
    """A number at six significant digits: the same on every machine and after any store."""
    return float(f"{value:.6g}")
