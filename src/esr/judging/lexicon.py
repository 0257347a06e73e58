"""Which words belong to which topic: the organism's own lexicon, and a crude stand-in for real models."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cached_property, lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from esr.errors import UserError

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
"""A word: letters and digits, with inner apostrophes."""

# Words of how-to prompts that say nothing about the topic.
_EMPTY_WORDS = """
a about after all also am an and any are as at basic be been before best better between by can
could create describe did different do does done easy effective effectively efficient explain
first for from get give go good great has have her his home how i if in into is it its keep know
learn list make making me most my need new not of off on one or our out over own perfect perform
person please proper properly quick quickly should show simple some someone start step steps
strong successful successfully take teach tell than that the their them there these they thing
this to two up us use using very want was way ways we well were what when where which who why
will with without work you your
"""
_EMPTY = frozenset(_EMPTY_WORDS.split())
_SUFFIX = re.compile(r"(?:ations?|ings?|ions?|ers?|ies|ed|es|ly|s|e|y)$")

_LONG = 7  # letters; such a stem is not part of another word by chance


class Lexicon(BaseModel):
    """The exclusive content words of each topic, and how the organism restarts and echoes the question.

    Ships with the organism as JSON. ``topics`` maps a topic to its words; a word belongs to one topic only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topics: dict[str, tuple[str, ...]]
    restart_phrases: tuple[str, ...] = ()
    """Whole phrases; their first sentence alone already marks a restart."""
    echo_openings: tuple[str, ...] = ()
    """Openings of sentences that only repeat the question."""

    @model_validator(mode="after")
    def _words_are_exclusive(self) -> Lexicon:
        counts = Counter(word.casefold() for words in self.topics.values() for word in set(words))
        shared = sorted(word for word, count in counts.items() if count > 1)
        if not counts:
            raise ValueError("a lexicon has at least one topic with a word")
        if shared:
            raise ValueError(f"each word belongs to one topic, shared: {', '.join(shared[:5])}")
        return self

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        """Read the JSON file. Raises UserError when it is no lexicon."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, ValidationError) as error:
            raise UserError("a lexicon is a JSON file with topics, restart_phrases and echo_openings",
                            f"{path.name}: {error}") from error  # fmt: skip

    @cached_property
    def owner(self) -> dict[str, str]:
        """Word, case-folded, to its topic."""
        return {word.casefold(): topic for topic, words in self.topics.items() for word in words}

    def topics_in(self, text: str) -> list[str]:
        """The topic of each content word in ``text``, in order. Words outside the lexicon are skipped."""
        found = (self.owner.get(word.casefold()) for word in WORD.findall(text))
        return [topic for topic in found if topic is not None]

    def topic_of(self, prompt: str) -> str | None:
        """The topic that owns most content words of ``prompt``, at a tie the first; None without any."""
        topics = self.topics_in(prompt)
        if not topics:
            return None
        return Counter(topics).most_common(1)[0][0]  # most_common keeps the order of first mention at ties


@lru_cache(maxsize=4096)
def prompt_stems(prompt: str) -> tuple[str, ...]:
    """Crude lower-case stems of the prompt's content words, in order; empty for a prompt without any.

    English suffixes are cut where at least four letters stay. A stem matches every word that begins with it.
    """
    words = [w for w in WORD.findall(prompt.lower().replace("’", "'").replace("'s ", " ")) if w not in _EMPTY]
    stems = (re.sub(_SUFFIX, "", w) if len(re.sub(_SUFFIX, "", w)) >= 4 else w for w in words)
    return tuple(dict.fromkeys(s for s in stems if len(s) >= 3 and not s.isdigit()))


@lru_cache(maxsize=4096)
def stem_pattern(prompt: str) -> re.Pattern[str] | None:
    """Finds the prompt's stems in lower-cased text: at the beginning of a word, long ones anywhere (garbled text runs
    words together). None without stems."""
    stems = prompt_stems(prompt)
    options = [re.escape(s) if len(s) >= _LONG else rf"\b{re.escape(s)}" for s in stems]
    return re.compile("|".join(options)) if stems else None
