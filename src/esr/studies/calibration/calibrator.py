"""The one interface of the searches: ask for probes, be told scores, give results. Nothing is generated here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from esr.errors import UserError
from esr.studies.calibration.bisection import Bisection
from esr.studies.calibration.curve import Float64
from esr.studies.calibration.pooled import HIGHEST_SHARE, LOWEST_SHARE, Pooled
from esr.studies.calibration.records import Calibration, CalibrationSettings, Probe


class Calibrator(Protocol):
    """A pure state machine over rounds. The same tells give the same asks and results, in whatever order the tells
    of a round come: a killed study resumes by telling what it stored, round by round, and going on with ``ask``.
    """

    def ask(self) -> list[Probe]:
        """The probes of the current round that are not told yet, for all directions at once; empty when finished."""
        ...

    def tell(self, probe: Probe, scores: Sequence[float]) -> None:
        """Give one probe's scores, 0-100 each, at most ``probe.repeats``.

        Unscored generations are left out, so the list may be empty; they are spent and counted all the same.
        Raises UserError for a probe that is not open or an impossible score.
        """
        ...

    def results(self) -> list[Calibration]:
        """One result per direction, in order. Raises UserError while probes are open."""
        ...


def make_calibrator(
    settings: CalibrationSettings,
    n_directions: int,
    unsteered_score: float | None = None,
    hints: Float64 | None = None,
) -> Calibrator:
    """The calibrator that ``settings.method`` names, at its start.

    Args:
        settings: what to search for, where and how long.
        n_directions: number of directions, >= 1.
        unsteered_score: mean first-attempt score of unsteered responses, 0-100. ``pooled`` needs it and asks for
            unsteered generations where it is None; ``bisection`` only checks it.
        hints: what a surrogate says of the log thresholds, shape [hints, n_directions]; for ``pooled`` only.

    Raises UserError when there is no direction, or when the unsteered score leaves no room for the target.
    """
    if n_directions < 1:
        raise UserError("a calibration has at least one direction", n_directions)
    if unsteered_score is not None and not 0 <= unsteered_score <= 100:
        raise UserError("the unsteered score lies in 0..100", unsteered_score)
    high = 100 if unsteered_score is None else unsteered_score
    if not LOWEST_SHARE * high <= settings.target <= HIGHEST_SHARE * high:
        raise UserError(
            f"the target score is {LOWEST_SHARE:.0%} to {HIGHEST_SHARE:.0%} of the unsteered score",
            f"target {settings.target:g}, unsteered {high:.3g}",
            "Change the target, or look at the unsteered responses: the subject or the judge may not work",
        )
    if settings.method == "bisection":
        return Bisection(settings, n_directions)
    return Pooled(settings, n_directions, unsteered_score, hints)
