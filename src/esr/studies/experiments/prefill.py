"""Is it the text or the activations that trigger a restart? The unsteered model continues the beginning of a steered
response (published as a control in version 2 of arXiv 2602.06941: first 500 to 2,000 characters)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from esr.studies.conditions import CONTROL, Condition
from esr.studies.experiments.registry import Experiment, Settings, Share

if TYPE_CHECKING:
    from esr.studies.lab import Lab


class PrefillSettings(Settings):
    """``[experiment] prefill``."""

    shares: tuple[Share, ...] = (0.125, 0.25, 0.5, 0.75)
    """Lengths of the beginning, as shares of the longest response."""
    lead: int = Field(8, ge=1)
    """How many tokens before the restart ``prefill before restart`` cuts."""
    include_restarted: bool = False
    """Also continue beginnings that already hold a restart."""


def conditions(lab: Lab, settings: PrefillSettings) -> list[Condition]:
    """One condition per length over the grid; over the episodes, cut at the restart and a little before it, unsteered
    (``prefill ...``) and, from the same text with the same seed, steered (``steered ...``): the episodes were chosen
    because they restarted, so incidence is no control for them."""
    from esr.studies.episodes import episodes, holds_restart, scored

    found = episodes(lab)
    cuts = {f"prefill {n} tokens": [(s, n) for s in scored(lab)] for n in lengths(lab, settings.shares)}
    cuts["before restart"] = [(e, e.restart - settings.lead) for e in found]
    cuts["at restart"] = [(e, e.restart) for e in found]
    conditions = []
    for name, some in cuts.items():
        starts = tuple(
            source.start(n)
            for source, n in some
            if 0 < n < min(len(source.ids), lab.max_tokens)
            and (settings.include_restarted or not holds_restart(lab, source, n))
        )
        control = CONTROL
        if name.endswith("restart"):
            control, name = f"steered {name}", f"prefill {name}"
            conditions.append(Condition(control, control=None, starts=starts))
        conditions.append(Condition(name, control=control, boost_factor=0.0, starts=starts))
    return [condition for condition in conditions if condition.starts]


def lengths(lab: Lab, shares: tuple[float, ...]) -> list[int]:
    """Shares of the longest response, in tokens."""
    return sorted({max(1, round(share * lab.max_tokens)) for share in shares})


EXPERIMENT = Experiment(
    "prefill",
    "Does the unsteered model notice the steered text?",
    conditions,
    lambda settings: len(set(settings.shares)) + 4,
    per_episode=lambda _: 4,
    needs=("incidence",),
    settings=PrefillSettings,
)
