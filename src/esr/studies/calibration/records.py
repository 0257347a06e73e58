"""What a calibration is asked for, asks for, and answers: settings, probes and results, all frozen.

Calibration finds each direction's *threshold*: the boost at which its mean first-attempt score meets a target
(arXiv 2602.06941: 30 of 100). Scores are 0-100; boosts are in the direction's own units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esr.errors import UserError

Method = Literal["bisection", "pooled"]
Stopped = Literal["", "narrow", "out of reach", "rounds spent"]


_SURROGATE = ("surrogate", "surrogate_boosts", "surrogate_texts")


class CalibrationSettings(BaseModel):
    """How thresholds are searched for. Validated when made; a value that cannot work raises ``UserError``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "pooled"
    """``bisection``: the published search, each direction by itself. ``pooled``: directions share what they learn."""
    target: float = 30.0
    """Mean score that defines the threshold, 0 < target < 100 score points."""
    lower: float = 0.0
    """Lowest boost that may be asked, >= 0, in boost units."""
    upper: float
    """Highest boost that may be asked, > lower, in boost units."""
    prior_mean: float
    """Where thresholds are expected, lower < prior_mean < upper, in boost units. ``pooled`` corrects it as it goes."""
    prior_sd: float
    """Standard deviation of that expectation over directions, > 0, in boost units."""
    rounds: int = Field(default=10, strict=True)
    """Rounds of probes, >= 1. ``bisection`` always does all of them, ``pooled`` at most so many."""
    repeats: int = Field(default=5, strict=True)
    """Generations asked for per direction and round, >= 1. ``pooled`` asks for so many on average: more where they tell
    more, and never more than ``rounds`` x ``repeats`` steered ones of one direction."""
    tolerance: float = 7.0
    """``pooled`` only: a direction is done when the posterior standard deviation of its true mean score at its
    threshold is no more than this many score points, > 0."""
    sign_weight: float = 5.0
    """``bisection`` only: how many Beta observations the mean of one complete round counts for, > 0 (published: 5)."""
    surrogate: bool = False
    """``pooled`` only: first read how far each boost moves the next tokens of unsteered responses, and let that predict
    the thresholds: forward passes instead of generations and judgements."""
    surrogate_boosts: int = Field(default=12, strict=True)
    """``surrogate`` only: boosts read per direction, >= 2."""
    surrogate_texts: int = Field(default=10, strict=True)
    """``surrogate`` only: unsteered responses read at every boost, >= 1; as many as there are at most."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("target", "lower", "upper", "prior_mean", "prior_sd", "tolerance", "sign_weight"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} is a finite number", getattr(self, name))
        if not 0 < self.target < 100:
            raise UserError("the target score lies between 0 and 100", self.target, "Published: 30")
        if not 0 <= self.lower < self.upper:
            raise UserError(
                "the bounds of the boost satisfy 0 <= lower < upper", f"lower {self.lower:g}, upper {self.upper:g}"
            )
        if not self.lower < self.prior_mean < self.upper:
            raise UserError(
                "the prior mean lies between the bounds",
                f"{self.prior_mean:g} for [{self.lower:g}, {self.upper:g}]",
                "Widen the bounds or move the prior mean",
            )
        for name in ("prior_sd", "tolerance", "sign_weight"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is greater than 0", getattr(self, name))
        for name, least in (("rounds", 1), ("repeats", 1), ("surrogate_boosts", 2), ("surrogate_texts", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is at least {least}", getattr(self, name))
        if self.surrogate and self.method != "pooled":
            raise UserError(
                "only the pooled method has use for a surrogate", f"method {self.method}", 'Set method = "pooled"'
            )
        return self

    def describe(self) -> dict[str, Any]:
        """The settings as plain data; those of a surrogate that is off are not part of it, so that a study made before
        there was one has the settings it had."""
        return self.model_dump(mode="json", exclude=None if self.surrogate else set(_SURROGATE))


@dataclass(frozen=True)
class Probe:
    """A request: generate and judge ``repeats`` half-length responses of one direction at one boost.

    No two probes of a calibration share direction, round and boost.
    """

    direction: int
    """Index of the direction, 0 <= direction < n_directions."""
    boost: float
    """In the direction's own units; 0 asks for unsteered responses. Rounded to six significant digits."""
    round: int
    """0-based round (``pooled``: step, up to three to a round) the probe belongs to."""
    repeats: int
    """How many generations, >= 1."""


@dataclass(frozen=True)
class Calibration:
    """What the search found out about one direction."""

    threshold: float | None
    """The boost whose mean score meets the target; None when uncalibrated."""
    low: float
    """Lower end of the central 95 % credible interval of the threshold, within the bounds. Boost units."""
    high: float
    """Upper end of it. An end that lies on a bound says only that the threshold may be beyond that bound."""
    predicted: float | None
    """Mean score, 0-100, that the method's own model expects at the threshold; None without a model or threshold."""
    generations: int
    """Generations asked for and answered, scored or not."""
    status: Literal["calibrated", "uncalibrated"]
    reason: str = ""
    """Why the direction is uncalibrated, with the numbers; empty when calibrated."""
    stopped: Stopped = ""
    """Why no more was asked: the posterior was ``narrow`` enough, the threshold ``out of reach`` of the bounds, or the
    ``rounds spent``; empty in a study made before this was stored."""
    surrogate: float | None = None
    """The boost at which the surrogate alone expects the threshold, by its regression over all directions of the study;
    None without one."""
