"""Find the places where a response announces that it starts its answer again.

A cheap screen for restart candidates (METHOD section 6): the phrases are data (``phrases``), the place is exact.
It reads words, not meaning. What it is told to leave alone: apologies in quotation marks, block quotes, a return
to another question than the prompt's, a word slip, waiting as an instruction, and a fact that corrects itself.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

from esr.judging.lexicon import WORD, stem_pattern
from esr.judging.phrases import Phrase, restart_phrases
from esr.judging.records import RestartKind

SCREEN_VERSION = 1

_FOLDS = str.maketrans(
    {
        **dict.fromkeys("‘’ʼ`´", "'"),
        **dict.fromkeys("“”„‟«»＂", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000\t", " "),
        **dict.fromkeys("\r\u2028\u2029", "\n"),
        **dict(zip("，：；！？", ",:;!?", strict=True)),
    }
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_SENTENCE_END = re.compile(r"(?:[.!?]+[\"')\]*_]*(?=\s)|[。！？।]+[\"'」』）]*|\n)\s*")
_QUOTED = re.compile(r'(?<![a-z0-9])"[^"\n]{2,400}"|「[^」\n]{1,200}」|『[^』\n]{1,200}』|^ {0,3}>[^\n]*', re.MULTILINE)
_CLAUSE = re.compile(r"[,;:(] | - ")
_CONTRAST = re.compile(
    r"[ ,;-](?=(?:but|however|although|sorry|wait|oops|hmm|anyway|so let|so lets|so moving|aber|pero|mais|mas) )"
)
_LINE_END = re.compile(r"[.!?\n]")
_NAMED = re.compile(
    r"(?:[\s,:-]{0,3}(?:of|about|on|regarding|which (?:is|was)|how to|how|namely|concerning)\b|, (?:the|our|that of)\b)"
    r"([^.!?\n]{0,80})"
)
_VAGUE_WORDS = """
about actually again answer asked first have here hand learn place properly question that this topic were what
which will with your
"""
_VAGUE = frozenset(_VAGUE_WORDS.split())
_ANNOUNCING = ("redo", "refocus")
_BY_WEIGHT: tuple[RestartKind, ...] = ("disowning", "inadequacy", "redo", "pretext", "refocus", "pivot")

# All in characters.
_ADJOINING = 160  # between two phrases of one restart, at most
_SOMETHING = 8  # letters and digits before a restart, at least
_LEAD = 60  # of its sentence before a restart phrase that still belong to the restart
_REACH = 260  # after a phrase, in which the prompt's words must come back
_TOPIC = 160  # after a phrase, within its sentence, in which the prompt's words must stand
_NEAR = 70  # the same for a bare transition
_BEFORE = 200  # before a phrase, which say whether the text had left the topic


@dataclass(frozen=True)
class RestartMark:
    """A place where a new attempt begins."""

    start: int
    """First character of the restart phrase in the response: the new attempt begins here."""
    end: int
    """Exclusive; where the last phrase of this restart ends."""
    kind: RestartKind
    phrase: str
    """The text between the two, verbatim."""


@dataclass(frozen=True)
class _Hit:
    start: int
    end: int
    phrase: Phrase


class Folded:
    """Lower-cased text with typographic marks made plain and invisible characters left out, and the way back."""

    def __init__(self, text: str) -> None:
        lower = text.lower()
        if len(lower) != len(text):  # a few characters grow when lowered, which would shift every offset
            lower = "".join(low if len(low := c.lower()) == 1 else c for c in text)
        lower = lower.translate(_FOLDS)
        self._kept: list[int] | None = None
        if _INVISIBLE.search(lower):
            self._kept = [i for i, c in enumerate(lower) if not _INVISIBLE.match(c)]
            lower = "".join(lower[i] for i in self._kept)
        self.text = lower

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The original offsets of a non-empty stretch of the folded text."""
        if self._kept is None:
            return start, end
        return self._kept[start], self._kept[end - 1] + 1


def find_restarts(text: str, prompt: str = "") -> list[RestartMark]:
    """The restarts announced in ``text``, in order, with exact character offsets into it.

    ``prompt`` decides about phrases that are not enough by themselves: whether its own words come back. Without a
    prompt they count only as an admission beside an announcement. Phrases of one restart in adjoining sentences
    ("Wait, that is not right. Let me start over.") are one mark. There is no mark at the very beginning: a restart
    needs something to restart from. Time is linear in the text.
    """
    return list(_restarts(text, prompt))


@lru_cache(maxsize=4096)  # the rule judge looks at what the study's screen has just looked at
def _restarts(text: str, prompt: str) -> tuple[RestartMark, ...]:
    folded = Folded(text)
    low = folded.text
    stems = stem_pattern(prompt)
    sentences = [0, *(m.end() for m in _SENTENCE_END.finditer(low))]
    quoted = [m.span() for m in _QUOTED.finditer(low)]
    hits = [h for h in _hits(low) if not _inside(quoted, h.start)]
    marks: list[RestartMark] = []
    for run in _runs(hits, sentences):
        counted = _counted(low, run, stems)
        if not counted:
            continue
        first = _phrase_start(low, min(h.start for h in counted), sentences)
        if sum(map(str.isalnum, low[max(0, first - 200) : first])) < _SOMETHING:
            continue
        start, end = folded.span(first, max(h.end for h in counted))
        kinds = {h.phrase.kind for h in counted}
        marks.append(RestartMark(start, end, next(k for k in _BY_WEIGHT if k in kinds), text[start:end]))
    return tuple(marks)


def _hits(low: str) -> list[_Hit]:
    found = (_Hit(*m.span(), phrase) for phrase in restart_phrases() for m in phrase.regex.finditer(low))
    return sorted(found, key=lambda h: (h.start, h.end))


def _inside(spans: list[tuple[int, int]], position: int) -> bool:
    at = bisect_right(spans, (position, sys.maxsize)) - 1
    return at >= 0 and position < spans[at][1]


def _runs(hits: list[_Hit], sentences: list[int]) -> list[list[_Hit]]:
    """Hits close together in the same or adjoining sentences belong to one restart."""
    runs: list[list[_Hit]] = []
    end = 0
    for hit in hits:
        apart = bisect_right(sentences, hit.start) - bisect_right(sentences, end - 1)
        if runs and apart <= 1 and hit.start - end <= _ADJOINING:
            runs[-1].append(hit)
        else:
            runs.append([hit])
            end = 0
        end = max(end, hit.end)
    return runs


def _counted(low: str, run: list[_Hit], stems: re.Pattern[str] | None) -> list[_Hit]:
    """The phrases of a run that make it a restart; none if it is no restart."""
    if stems is not None and _elsewhere(low, run, stems):
        return []
    counted = [h for h in run if h.phrase.needs == "nothing" or (stems is not None and _proven(low, h, stems))]
    beside = [h for h in run if h.phrase.needs in ("pair", "topic")]
    both = len({h.phrase.kind in _ANNOUNCING for h in beside}) == 2  # an admission and an announcement
    return counted + [h for h in beside if h not in counted] if counted or both else []


def _proven(low: str, hit: _Hit, stems: re.Pattern[str]) -> bool:
    """Whether the prompt's words bear a phrase out that is not enough by itself."""
    if hit.phrase.needs == "topic":
        return _in_sentence(low, hit, stems, _TOPIC)
    if stems.search(low, max(0, hit.start - _BEFORE), hit.start):
        return False
    if hit.phrase.needs == "both":
        return _in_sentence(low, hit, stems, _NEAR)
    return stems.search(low, hit.start, hit.end + _REACH) is not None


def _in_sentence(low: str, hit: _Hit, stems: re.Pattern[str], reach: int) -> bool:
    end = _LINE_END.search(low, hit.end, hit.end + reach)
    return stems.search(low, hit.start, end.start() if end else min(len(low), hit.end + reach)) is not None


def _elsewhere(low: str, run: list[_Hit], stems: re.Pattern[str]) -> bool:
    """A return to the wrong question: a phrase names something that is not in the prompt, nor do its words follow."""
    for hit in run:
        rest = _NAMED.match(low, hit.end, hit.end + 110) if hit.phrase.kind == "refocus" else None
        named = rest and [w for w in WORD.findall(rest[1]) if len(w) > 3 and w not in _VAGUE]
        if named and not stems.search(low, hit.start, hit.end + _REACH):
            return True
    return False


def _phrase_start(low: str, position: int, sentences: list[int]) -> int:
    """Where the new attempt begins: the phrase's sentence, or its clause if the sentence began as something else."""
    begin = sentences[bisect_right(sentences, position) - 1]
    near = max(begin, position - _LEAD)
    contrasts = [at for m in _CONTRAST.finditer(low, near, position + 12) if begin + 12 < (at := m.end()) <= position]
    if contrasts:
        position = contrasts[-1]
    elif position - begin <= _LEAD:
        position = begin
    else:
        position = max((m.end() for m in _CLAUSE.finditer(low, near, position)), default=position)
    while position < len(low) and low[position].isspace():
        position += 1
    return position
