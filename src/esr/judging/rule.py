"""The rule judge: restarts from the phrase screen, scores from counting words. Free, instant, and no understanding.

Exact on the organism, whose lexicon says which word belongs to which topic. On a real model's responses its restarts
are a screen and its scores are a crude word overlap: good for smoke tests, never for a result.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from esr.judging.lexicon import WORD, Lexicon, stem_pattern
from esr.judging.phrases import restart_phrases
from esr.judging.records import EXPLICIT_KINDS, Attempt, Exhibit, Judgement, RestartKind, Scored, Unscored
from esr.judging.screen import SCREEN_VERSION, Folded, RestartMark, find_restarts

RULE_VERSION = 1

_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")
_QUOTE_WORDS, _QUOTE_LENGTH = 8, 80
_SHORTEST = 8  # characters: without a lexicon, an attempt needs as many beside its restart phrase
_SPLIT_FIRST_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class RuleJudge:
    """Judges by rules alone; implements ``Judge``.

    With a ``lexicon``: an attempt's score is 100 x (content words of the prompt's topic) / (content words), words in
    restart phrases and in sentences that echo the question left out. An attempt without a content word is none.

    Without one, for a real model: the share of sentences, 0-100, with a word that begins like one of the prompt's
    content words. This is a crude overlap for smoke tests and restart screening, and measures no quality.
    """

    lexicon: Lexicon | None = None

    @property
    def name(self) -> str:
        """``rule``."""
        return "rule"

    @cached_property
    def key(self) -> str:
        """Hash of rules, phrases and lexicon."""
        phrases = [(p.kind, p.language, p.pattern, p.needs) for p in restart_phrases()]
        lexicon = self.lexicon.model_dump() if self.lexicon else None
        content = json.dumps([RULE_VERSION, SCREEN_VERSION, phrases, lexicon], sort_keys=True)
        return "rule-" + hashlib.sha256(content.encode()).hexdigest()[:16]

    def judge(self, exhibits: Iterable[Exhibit]) -> Iterator[tuple[str, Judgement]]:
        """Yield (exhibit id, judgement), in the order of the exhibits."""
        for exhibit in exhibits:
            yield exhibit.id, self.judge_one(exhibit)

    def judge_one(self, exhibit: Exhibit) -> Judgement:
        """The judgement of one response. Unscored: ``no attempt`` without anything to score; ``error`` for a prompt
        that no topic of the lexicon owns a word of."""
        text = exhibit.response
        topic = self.lexicon.topic_of(exhibit.prompt) if self.lexicon else None
        if self.lexicon and topic is None:
            return Unscored("error", "no topic of the lexicon owns a word of the prompt")
        opening = len(text) - len(text.lstrip())
        marks = [m for m in self._marks(text, exhibit.prompt) if m.start > opening]
        bounds = [opening, *(m.start for m in marks), len(text)]
        attempts: list[Attempt] = []
        for i, (start, end) in enumerate(pairwise(bounds)):
            mark = marks[i - 1] if i else None
            score = (
                self._on_topic(text[start:end], topic)
                if topic
                else _overlap(text[mark.end if mark else start : end], exhibit.prompt)
            )
            if score is None:
                continue
            kind: RestartKind | None = mark.kind if mark and attempts else None
            attempts.append(Attempt(start, end, score, opening_words(text[start:end]), kind))
        return Scored(tuple(attempts)) if attempts else Unscored("no attempt")

    def _marks(self, text: str, prompt: str) -> list[RestartMark]:
        """The screen's marks and the lexicon's phrases, those that touch made one."""
        marks = find_restarts(text, prompt)
        if self.lexicon:  # in templated text a bare "now, ..." is an ordinary transition
            marks = [m for m in marks if m.kind in EXPLICIT_KINDS]
        if self._phrases is not None:
            folded = Folded(text)
            for match in self._phrases.finditer(folded.text):
                start, end = folded.span(*match.span())
                marks.append(RestartMark(start, end, phrase_kind(text[start:end]), text[start:end]))
        merged: list[RestartMark] = []
        for mark in sorted(marks, key=lambda m: (m.start, -m.end)):
            before = merged[-1] if merged else None
            if before and not WORD.search(text[before.end : mark.start]):
                end = max(before.end, mark.end)
                merged[-1] = RestartMark(before.start, end, before.kind, text[before.start : end])
            else:
                merged.append(mark)
        return merged

    @cached_property
    def _phrases(self) -> re.Pattern[str] | None:
        """Any restart phrase of the lexicon, at least its first sentence, however its punctuation is spaced."""
        if not self.lexicon or not self.lexicon.restart_phrases:
            return None
        options = []
        for phrase in sorted(self.lexicon.restart_phrases, key=len, reverse=True):
            first, *rest = _SPLIT_FIRST_SENTENCE.split(re.sub(r"\s+(?=[.,!?])", "", phrase.strip()))
            options.append(_spaced(first) + "".join(f"(?:{_GAP}{_spaced(sentence)})?" for sentence in rest))
        return re.compile("|".join(options))

    def _on_topic(self, text: str, topic: str) -> float | None:
        """100 x share of the attempt's content words that belong to ``topic``; None without content words."""
        assert self.lexicon
        low = Folded(text).text
        if self._phrases:
            low = self._phrases.sub("\n", low)
        echoes = tuple(_plain(opening) for opening in self.lexicon.echo_openings)
        told = (s for s in _SENTENCE.findall(low) if not (echoes and _plain(s).startswith(echoes)))
        topics = [t for sentence in told for t in self.lexicon.topics_in(sentence)]
        return 100 * topics.count(topic) / len(topics) if topics else None


def _overlap(text: str, prompt: str) -> float | None:
    """Share of sentences, 0-100, with a word that begins with a stem of the prompt; None for next to no text."""
    sentences = [s for s in _SENTENCE.findall(text.lower()) if WORD.search(s)]
    if sum(map(len, sentences)) < _SHORTEST:
        return None
    stems = stem_pattern(prompt)
    return 100 * sum(bool(stems and stems.search(s)) for s in sentences) / len(sentences)


_GAP = r"[^\w\n]{1,4}"


def _spaced(sentence: str) -> str:
    """A pattern for the sentence's words with any short punctuation between them, in folded text."""
    return r"\b" + _GAP.join(re.escape(word) for word in re.findall(r"\w+", sentence.lower())) + r"\b[ ]?[.!?]?"


def _plain(sentence: str) -> str:
    return " ".join(re.findall(r"\w+", sentence.lower()))


def phrase_kind(phrase: str) -> RestartKind:
    """The kind the screen gives a restart phrase; ``disowning`` for one it does not know."""
    marks = find_restarts(f"Some text before it.\n{phrase}")
    return marks[0].kind if marks else "disowning"


def opening_words(text: str) -> str:
    """The attempt's opening words, verbatim: at most eight words and 80 characters."""
    opening = text.lstrip()
    words = list(re.finditer(r"\S+", opening[:_QUOTE_LENGTH]))[:_QUOTE_WORDS]
    return opening[: words[-1].end()] if words else ""
