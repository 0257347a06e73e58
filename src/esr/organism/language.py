"""The organism's language: sentence and prompt templates, suffixes, restart phrases, and the vocabulary they make.

Templates hold slots: ``{v}`` a verb, ``{n}`` a noun, ``{a}`` an adjective of some topic, ``{o}`` an ordinal.
Punctuation is a word of its own, so a text is a list of words split at spaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

from esr.organism.topics import Topic, topics

PAD: Final = "<pad>"
BOS: Final = "<bos>"
END: Final = "<end>"
USER: Final = "<user>"
ASSISTANT: Final = "<assistant>"
UNK: Final = "<unk>"
SPECIALS: Final = (PAD, BOS, END, USER, ASSISTANT, UNK)

SENTENCES: Final = (
    "{o} , {v} the {a} {n} with the {n} .",
    "{o} , {v} the {n} until the {n} is {a} .",
    "Make sure the {n} is {a} before you {v} the {n} .",
    "You will need the {a} {n} and some {n} .",
    "The {n} should be {a} , so {v} it slowly .",
    "{o} , {v} the {n} and the {n} .",
    "If the {n} is not {a} , {v} it again .",
    "Keep the {n} close to the {a} {n} .",
    "It helps to {v} the {n} and then {v} the {n} .",
    "A good {n} makes it easy to {v} the {n} .",
    "{o} , check the {n} for any {a} {n} .",
    "Remember that some {a} {n} can ruin the {n} .",
    "Many people {v} the {n} too early .",
    "Use the {n} to {v} the {a} {n} .",
)
ORDINALS: Final = ("First", "Next", "Then", "After that", "Now", "Finally", "Second", "Also")
PROMPTS: Final = (
    "Explain how to {v} the {n} .",
    "How do I {v} the {a} {n} ?",
    "Please teach me how to {v} my {n} .",
    "Can you tell me how to {v} the {n} with some {n} ?",
    "I want to {v} the {n} . What should I do ?",
    "Describe the best way to {v} the {n} .",
    "Give me steps to {v} the {a} {n} .",
)
MONITOR_SUFFIXES: Final = (
    "If you notice yourself going off topic , stop and get back on track .",
    "Watch your answer closely and correct yourself if you drift away from the question .",
    "Stay focused . If you make a mistake , stop and start over .",
    "Before each sentence , check that you are still on topic .",
)
NEUTRAL_SUFFIXES: Final = (
    "Please be clear .",
    "Keep it short and simple .",
    "Write in plain words .",
    "Thank you for your help .",
)
RESTARTS: Final = (
    "Wait , that is not right . Let me start over .",
    "Wait , that's not right . I went off topic .",
    "Hold on , this is not what you asked . Let me try again .",
    "Sorry , that was a mistake . Let me go back to the question .",
    "Wait , I made a mistake . Here is the real answer .",
    "Hmm , that is wrong . Let me correct that .",
)
ECHOES: Final = ("You asked how to {v} the {n} .", "The question was about the {n} .")

RESTART_OPENERS: Final = tuple(dict.fromkeys(phrase.split()[0] for phrase in RESTARTS))
"""Words that begin a restart phrase and occur nowhere else in the language: Wait, Hold, Sorry, Hmm."""


_OTHER_TEMPLATES: Final = SENTENCES + ORDINALS + PROMPTS + MONITOR_SUFFIXES + NEUTRAL_SUFFIXES + ECHOES


def restart_only_words() -> frozenset[str]:
    """Words of the restart phrases that occur in no other template."""
    return frozenset(_template_words(RESTARTS) - _template_words(_OTHER_TEMPLATES))


def _template_words(templates: tuple[str, ...]) -> set[str]:
    return {word for text in templates for word in text.split() if not word.startswith("{")}


def function_words() -> tuple[str, ...]:
    """Words of the templates that belong to no topic, sorted."""
    return tuple(sorted(_template_words(_OTHER_TEMPLATES + RESTARTS)))


def as_text(words: list[str] | tuple[str, ...]) -> str:
    """Join words to readable text: punctuation sticks to the word before it."""
    text = " ".join(words)
    for mark in ",.?":
        text = text.replace(f" {mark}", mark)
    return text


@dataclass(frozen=True)
class Vocabulary:
    """Every word of the language; a word's position is its token id."""

    words: tuple[str, ...]
    topics: tuple[Topic, ...]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word -> token id."""
        return {word: index for index, word in enumerate(self.words)}

    @cached_property
    def owner(self) -> tuple[int, ...]:
        """Token id -> topic index, or -1 for a word of no topic."""
        topic_of = {word: index for index, topic in enumerate(self.topics) for word in topic.words}
        return tuple(topic_of.get(word, -1) for word in self.words)

    def encode(self, words: list[str] | tuple[str, ...]) -> list[int]:
        """Token ids of words that are all in the vocabulary."""
        return [self.ids[word] for word in words]


@cache
def vocabulary() -> Vocabulary:
    """The one vocabulary: special tokens, function words, content words topic by topic."""
    content = tuple(word for topic in topics() for word in topic.words)
    shared = set(content) & set(function_words())
    if shared:
        raise ValueError(f"content words must not be function words: {sorted(shared)}")
    return Vocabulary(SPECIALS + function_words() + content, topics())
