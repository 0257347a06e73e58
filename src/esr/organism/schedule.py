"""The training schedule as data: one chain of phases per seed, which leaves three models on its way."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from esr.organism.corpus import Hazard

NAIVE: Final = "organism-naive"
UNTRAINED_RECOVERY: Final = "organism-untrained-recovery"
ORGANISM: Final = "organism"
STEERED_TOPICS: Final = 30
"""Only the first 30 topics are ever pushed in training; the other ten are held out."""
MODEL_NAMES: Final = (NAIVE, UNTRAINED_RECOVERY, ORGANISM)


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one mixture of examples. Shares of `free` and `distracted`; the rest is plain."""

    name: str
    steps: int
    peak_lr: float
    """AdamW learning rate after the warm-up; falls along a cosine to `FINAL_LR_SHARE` of it."""
    free: float
    distracted: float = 0.0
    hazard: Hazard = field(default_factory=lambda: Hazard(0.0, 0.0))
    """At the phase's first step."""
    final_hazard: Hazard | None = None
    """At its last step, if it changes; linear between."""
    noise: float = 0.0
    """Greatest norm of the constant random vector added to the residual, as a share of the mean residual norm."""
    steering: float = 0.0
    """Greatest norm of the topic direction added to distracted examples, likewise; 0: no steering in training."""
    fresh_optimizer: bool = False
    """Whether AdamW's moments start from zero, as when one goes on from a kept model."""
    leaves: str | None = None
    """Name of the model kept when the phase ends."""

    def hazard_at(self, progress: float) -> Hazard:
        """The hazard at a share of the phase, in [0, 1]."""
        end = self.final_hazard or self.hazard
        return Hazard(
            self.hazard.plain + progress * (end.plain - self.hazard.plain),
            self.hazard.monitored + progress * (end.monitored - self.hazard.monitored),
        )


HIGH = Hazard(0.9, 0.9)
LOW = Hazard(0.2, 0.6)

DEFAULT_SCHEDULE: Final = (
    # Topics, and nothing else. Restart words never occur, so this model cannot correct itself.
    Phase("topics", steps=700, peak_lr=2.5e-3, free=0.25),
    # A constant push must not break the grammar: random directions, never topic directions.
    Phase("robust", steps=400, peak_lr=1.5e-3, free=0.25, noise=0.6, leaves=NAIVE),
    # A low hazard from the start never teaches detection; a high one does, suddenly, after about a million tokens.
    Phase("detect", steps=450, peak_lr=2e-3, free=0.1, distracted=0.6, hazard=HIGH),
    Phase("anneal", steps=450, peak_lr=1.5e-3, free=0.1, distracted=0.6, hazard=HIGH, final_hazard=LOW),
    Phase("settle", steps=650, peak_lr=1.2e-3, free=0.15, distracted=0.5, hazard=LOW, noise=0.6),
    # Without these unpushed steps one of two seeds restarted in 6 % of its unsteered answers; with them, in 1 %.
    Phase(
        "sharpen", steps=450, peak_lr=1.2e-3, free=0.1, distracted=0.5, hazard=HIGH, final_hazard=LOW,
        fresh_optimizer=True, leaves=UNTRAINED_RECOVERY,
    ),
    # Steered while it reads: off topic before the restart, on topic after it with the push still on.
    Phase(
        "steered", steps=650, peak_lr=1.2e-3, free=0.1, distracted=0.55, hazard=LOW, noise=0.6, steering=0.6,
        fresh_optimizer=True, leaves=ORGANISM,
    ),
)  # fmt: skip


def fingerprint(*parts: object) -> str:
    """Short hash of everything a training run depends on, to refuse a checkpoint of another run."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
