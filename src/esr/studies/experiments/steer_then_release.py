"""Does a recovery need the push, or does it work against it? Steering stops after so many tokens, or at the restart.
(METHOD section 5: proposed by reviewers, not run.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from esr.steering.interventions import Schedule
from esr.studies.conditions import Condition
from esr.studies.experiments.registry import Experiment, Settings, Share

if TYPE_CHECKING:
    from esr.studies.lab import Lab


class ReleaseSettings(Settings):
    """``[experiment] steer-then-release``."""

    shares: tuple[Share, ...] = (0.125, 0.25, 0.5)
    """Where steering stops, as shares of the longest response."""


def conditions(lab: Lab, settings: ReleaseSettings) -> list[Condition]:
    """Per share, the grid with steering until that token. Over the episodes: from the restart on, and from the end of
    its announcement on, without steering (``released``) and, from the same text with the same seed, with it (``held``).
    """
    from dataclasses import replace

    from esr.studies.episodes import episodes
    from esr.studies.experiments.prefill import lengths

    ends = lengths(lab, settings.shares)
    arms = [Condition(f"released at token {n}", schedule=_off_from(n)) for n in ends]
    found = episodes(lab)
    for where, cut in {"at restart": "restart", "after announcement": "spoken"}.items():
        cuts = [(e, getattr(e, cut)) for e in found if getattr(e, cut) < lab.max_tokens]
        held = tuple(episode.start(n) for episode, n in cuts)
        released = tuple(replace(start, schedule=_off_from(len(start.prefill_ids))) for start in held)
        if held:
            arms.append(Condition(f"held {where}", control=None, starts=held))
            arms.append(Condition(f"released {where}", control=f"held {where}", starts=released))
    return arms


def _off_from(n: int) -> Schedule:
    """No push on what chooses token n of the response: that is read off at position n - 1."""
    return Schedule.until_token(n - 1)


EXPERIMENT = Experiment(
    "steer-then-release",
    "Does a response recover once the push is taken away?",
    conditions,
    lambda settings: len(set(settings.shares)) + 4,
    per_episode=lambda _: 4,
    needs=("incidence",),
    settings=ReleaseSettings,
)
