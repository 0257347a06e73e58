"""Find the places where a response announces that it starts its answer again.

A cheap screen for restart candidates (METHOD section 6): the phrases are data (``phrases``), the place is exact.
It reads words, not meaning. What it is told to leave alone: apologies inside quotation marks, block quotes, a return
to another question than the prompt's, a word slip, waiting as an instruction, and a fact that corrects itself.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache

from esr.judging.lexicon import WORD, stem_pattern
from esr.judging.phrases import PHRASES, Phrase
from esr.judging.records import RestartKind

SCREEN_VERSION = 1

_FOLDS = str.maketrans(
    {
        **dict.fromkeys("‘’ʼ`´", "'"), **dict.fromkeys("“”„‟«»＂", '"'), **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000\t", " "), "，": ",", "：": ":", "；": ";", "！": "!", "？": "?",
        "\r": "\n", "\u2028": "\n", "\u2029": "\n",
    }
)  # fmt: skip
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_SENTENCE_END = re.compile(r"(?:[.!?]+[\"')\]*_]*(?=\s)|[。！？।]+[\"'」』）]*|\n)\s*")
_QUOTED = re.compile(r'(?<![a-z0-9])"[^"\n]{2,400}"|「[^」\n]{1,200}」|『[^』\n]{1,200}』')
_BLOCK_QUOTE = re.compile(r"^ {0,3}>[^\n]*", re.MULTILINE)
_CLAUSE = re.compile(r"[,;:(] | - ")
_CONTRAST = re.compile(
    r"[ ,;-](?=(?:but|however|although|sorry|wait|oops|hmm|anyway|so let|so lets|so moving|aber|pero|mais|mas) )"
)
_ADMISSION: tuple[RestartKind, ...] = ("disowning", "inadequacy", "redo", "refocus", "pretext", "pivot")
_ADJOINING = 160  # characters between two phrases of one restart
_SOMETHING = 8  # letters and digits before a restart, at least
_LEAD = 60  # characters of its sentence that a restart phrase may have before it
_REACH = 260  # characters after a phrase in which the prompt's words must come back
_BEFORE = 200  # characters before a phrase that say whether the text had left the topic


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
        self._length = len(text)

    def original(self, position: int) -> int:
        """The offset in the original text of a position in the folded one."""
        if self._kept is None:
            return position
        return self._kept[position] if position < len(self._kept) else self._length


def find_restarts(text: str, prompt: str = "") -> list[RestartMark]:
    """The restarts announced in ``text``, in order, with exact character offsets into it.

    ``prompt`` decides phrases that are not sure by themselves: they count where the prompt's own words come back
    after text without them. Without a prompt such phrases count only in pairs. Phrases of one restart in adjoining
    sentences ("Wait, that is not right. Let me start over.") are one mark. There is no mark at the response's
    very beginning: a restart needs something to restart from. Time is linear in the text.
    """
    folded = Folded(text)
    low = folded.text
    stems = stem_pattern(prompt)
    starts = [0, *(m.end() for m in _SENTENCE_END.finditer(low))]
    quoted = [m.span() for p in (_QUOTED, _BLOCK_QUOTE) for m in p.finditer(low)]
    quoted.sort()
    hits = [h for h in _hits(low) if not _inside(quoted, h.start) and not _elsewhere(low, h, stems)]
    marks: list[RestartMark] = []
    for run in _runs(hits, starts):
        if not _counts(low, run, stems):
            continue
        run_start = _phrase_start(low, run[0].start, starts)
        if sum(map(str.isalnum, low[max(0, run_start - 200) : run_start])) < _SOMETHING:
            continue
        kinds = {h.phrase.kind for h in run}
        start, end = folded.original(run_start), folded.original(max(h.end for h in run) - 1) + 1
        marks.append(RestartMark(start, end, next(k for k in _ADMISSION if k in kinds), text[start:end]))
    return marks


@cache
def _patterns() -> tuple[tuple[Phrase, re.Pattern[str]], ...]:
    return tuple((phrase, phrase.regex) for phrase in PHRASES)


def _hits(low: str) -> list[_Hit]:
    found = [_Hit(*m.span(), phrase) for phrase, pattern in _patterns() for m in pattern.finditer(low)]
    return sorted((h for h in found if h.end > h.start), key=lambda h: (h.start, h.end))


def _inside(spans: list[tuple[int, int]], position: int) -> bool:
    at = bisect_right(spans, (position, sys.maxsize)) - 1
    return at >= 0 and position < spans[at][1]


def _elsewhere(low: str, hit: _Hit, stems: re.Pattern[str] | None) -> bool:
    """A return to the wrong question: the phrase names a question about something that is not in the prompt."""
    if stems is None or hit.phrase.kind != "refocus" or hit.phrase.language != "en":
        return False
    rest = re.match(
        r"[\s,:-]{0,3}(?:of|about|on|regarding|which (?:is|was)|how to|how|namely|concerning)\b([^.!?\n]{0,80})",
        low[hit.end : hit.end + 110],
    )
    if rest is None:
        return False
    named = [w for w in WORD.findall(rest[1]) if len(w) > 3 and w not in _VAGUE]
    return bool(named) and not stems.search(low[hit.start : hit.end] + rest[1])


_VAGUE = frozenset("that this what your asked question topic about actually which with hand here answer have will "
                   "learn were again properly first place".split())  # fmt: skip


def _runs(hits: list[_Hit], starts: list[int]) -> list[list[_Hit]]:
    """Hits close together in the same or adjoining sentences belong to one restart."""
    runs: list[list[_Hit]] = []
    end = 0
    for hit in hits:
        sentences = bisect_right(starts, hit.start) - bisect_right(starts, end - 1)
        if runs and sentences <= 1 and hit.start - end <= _ADJOINING:
            runs[-1].append(hit)
        else:
            runs.append([hit])
            end = 0
        end = max(end, hit.end)
    return runs


def _counts(low: str, run: list[_Hit], stems: re.Pattern[str] | None) -> bool:
    """Whether the phrases of a run are enough for a restart."""
    if any(h.phrase.sure for h in run):
        return True
    admissions = {h.phrase.pattern for h in run if h.phrase.kind not in ("pivot", "pretext")}
    if len(admissions) >= 2:
        return True
    if stems is None:
        return False
    start, end = run[0].start, max(h.end for h in run)
    returns = stems.search(low[start : end + _REACH]) is not None
    if not admissions:  # a bare pivot or pretext must itself name the prompt's topic
        line = re.split(r"[.!?\n]", low[run[0].end : run[0].end + 120], maxsplit=1)[0]
        returns = stems.search(low[run[0].start : run[0].end] + line) is not None
    return returns and stems.search(low[max(0, start - _BEFORE) : start]) is None


def _phrase_start(low: str, position: int, starts: list[int]) -> int:
    """Where the new attempt begins: the phrase's sentence, or its clause when that sentence began as something else."""
    begin = starts[bisect_right(starts, position) - 1]
    lead = low[begin:position]
    near = max(0, len(lead) - _LEAD)
    contrast = _CONTRAST.search(lead, near)
    if contrast and contrast.end() > 12:
        position = begin + contrast.end()
    elif len(lead) <= _LEAD:
        position = begin
    else:
        clauses = [m.end() for m in _CLAUSE.finditer(lead, near)]
        position = begin + clauses[-1] if clauses else position
    while position < len(low) and low[position].isspace():
        position += 1
    return position
