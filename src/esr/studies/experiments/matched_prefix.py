"""Does recent on-topic text alone sustain a recovery? Under steering, the subject continues the first tokens of its own
recovery, of another prompt's recovery, or as many tokens of an unsteered answer (published as a control in version 2 of
arXiv 2602.06941). The judge sees what follows, not the prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esr.studies.conditions import Condition, Start
from esr.studies.experiments.registry import Experiment, Settings, Share

if TYPE_CHECKING:
    from esr.studies.lab import Lab


class MatchedPrefixSettings(Settings):
    """``[experiment] matched-prefix``."""

    share: Share = 0.2
    """Length of the prefixes, as a share of the longest response."""


def conditions(lab: Lab, settings: MatchedPrefixSettings) -> list[Condition]:
    """Three arms over the same episodes: those whose recovery and whose unsteered answer are long enough, and for which
    another prompt has a recovery."""
    from esr.studies.episodes import episodes

    n = max(1, round(settings.share * lab.max_tokens))
    unsteered = dict(zip(lab.cells, lab.outcomes("no-steering"), strict=True))
    found = [e for e in episodes(lab) if len(e.ids) - e.restart >= n]
    own, other, generic = [], [], []
    for episode in found:
        answer = unsteered[episode.cell]
        strangers = [e for e in found if e.cell.prompt_index != episode.cell.prompt_index]
        if len(answer.response.token_ids) < n or not strangers:
            continue
        same = [e for e in strangers if e.cell.direction == episode.cell.direction] or strangers
        stranger = same[int(lab.random("another prompt", episode.key).integers(len(same)))]
        own.append(Start(episode.cell, episode.ids[episode.restart :][:n], episode.key))
        other.append(Start(episode.cell, stranger.ids[stranger.restart :][:n], stranger.key))
        generic.append(Start(episode.cell, answer.response.token_ids[:n], answer.key))
    arms = {
        "prefix on-topic text": (None, generic),
        "prefix own recovery": ("prefix on-topic text", own),
        "prefix another's recovery": ("prefix on-topic text", other),
    }
    return [
        Condition(name, control=control, starts=tuple(starts), judged="continuation")
        for name, (control, starts) in arms.items()
        if starts
    ]


EXPERIMENT = Experiment(
    "matched-prefix",
    "Does recent on-topic text alone sustain a recovery?",
    conditions,
    lambda _: 3,
    per_episode=lambda _: 3,
    needs=("incidence", "no-steering"),
    settings=MatchedPrefixSettings,
)
