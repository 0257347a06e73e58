"""A hot spot is not a phenomenon: does a restart recur when the response is drawn again from just before it, from
earlier, and from the same place in responses that did not restart? (Others saw 0 of 30 recur: METHOD section 7.)"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from esr.studies.conditions import Condition
from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.conditions import Start
    from esr.studies.episodes import Source
    from esr.studies.lab import Lab


class BranchSettings(Settings):
    """``[experiment] branch``."""

    times: int = Field(5, ge=1)
    """Continuations of each beginning."""


def conditions(lab: Lab, settings: BranchSettings) -> list[Condition]:
    """Under steering, with fresh seeds: from just before the restart, from half way to it, and from the same token of a
    matched response without restart."""
    from esr.studies.episodes import episodes, partners, without_restart

    found = [e for e in episodes(lab) if e.restart < lab.max_tokens]
    matched = partners(lab, found, without_restart(lab), "branch")

    def starts(source: Source, tokens: int, purpose: str) -> list[Start]:
        seeds = lab.random("branch", purpose, source.key).integers(2**31, size=settings.times)
        return [source.start(tokens, replace(source.cell, seed=int(seed))) for seed in seeds]

    arms: dict[str, tuple[str | None, list[tuple[Source, int, str]]]] = {
        "branch without restart": (None, [(matched[e.key], e.restart, e.key) for e in found if e.key in matched]),
        "branch earlier": (None, [(e, max(1, e.restart // 2), e.key) for e in found]),
        "branch at restart": ("branch earlier", [(e, e.restart, e.key) for e in found]),
    }
    return [
        Condition(name, control=control, starts=tuple(start for cut in cuts for start in starts(*cut)))
        for name, (control, cuts) in arms.items()
        if cuts
    ]


EXPERIMENT = Experiment(
    "branch",
    "Does a restart recur from the same text?",
    conditions,
    lambda settings: 3 * settings.times,
    per_episode=lambda settings: 3 * settings.times,
    needs=("incidence",),
    settings=BranchSettings,
)
