"""Are the words enough? A restart phrase is put into a steered response that did not recover, where others restarted.
(METHOD section 5: a missing control.)"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from esr.studies.conditions import Condition, Start
from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.lab import Lab

PHRASES = (
    "Wait, this is not what you asked about. Let me start over.",
    "Sorry, I have drifted away from your question. Let me answer it properly.",
    "Actually, none of the above answers the question. Here is a proper answer.",
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")


class ForcedRestartSettings(Settings):
    """``[experiment] forced-restart``."""

    phrases: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What is put in, one drawn per trial; empty: ours, or the restart phrases of the subject's lexicon."""


def conditions(lab: Lab, settings: ForcedRestartSettings) -> list[Condition]:
    """The same beginnings with the phrase and without it. Each is cut at the end of the sentence in which a matched
    episode restarted. The phrase makes the second attempt; whether it improves is the question."""
    from esr.judging.lexicon import Lexicon
    from esr.studies.episodes import episodes, partners, without_restart

    path = lab.config.subject.lexicon_path()
    own = PHRASES if path is None else Lexicon.load(path).restart_phrases or PHRASES
    phrases = sorted(settings.phrases or own)
    forced: list[Start] = []
    plain: list[Start] = []
    found = episodes(lab)
    matched = partners(lab, found, without_restart(lab), "forced restart")
    for episode in found:
        source = matched.get(episode.key)
        if source is None:
            continue
        text = source.measured.response.text
        ends = [m.end() for m in _SENTENCE_END.finditer(text, len(lab.decode(source.ids[: episode.restart])))]
        if not ends:
            continue
        cut = lab.token_at(source.measured.response, ends[0])
        cut += len(lab.decode(source.ids[:cut])) < ends[0]  # the token that holds the sentence's end may hold more
        phrase = phrases[int(lab.random("phrase", source.key).integers(len(phrases)))]
        spoken = lab.subject.tokenizer(f" {phrase}", add_special_tokens=False)["input_ids"]
        if cut < len(source.ids) and cut + len(spoken) < lab.max_tokens and source.cell not in {s.cell for s in plain}:
            start = source.start(cut)
            plain.append(start)
            forced.append(Start(source.cell, (*start.prefill_ids, *spoken), source.key))
    if not plain:
        return []
    return [
        Condition("restart not forced", control=None, starts=tuple(plain)),
        Condition("restart forced", control="restart not forced", starts=tuple(forced)),
    ]


EXPERIMENT = Experiment(
    "forced-restart",
    "Does the announcement alone bring the answer back?",
    conditions,
    lambda _: 2,
    per_episode=lambda _: 2,
    needs=("incidence",),
    settings=ForcedRestartSettings,
)
