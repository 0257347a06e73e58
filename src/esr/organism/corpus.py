"""The corpus: short how-to dialogues, some of which drift to another topic and correct themselves.

An example carries its own loss mask. In a *distracted* example the words of the drift are never a target: the model
sees off-topic text but is not taught to write it. It is taught the decision at each sentence's first word: restart or
go on. A restart follows a drifting sentence with probability hazard x off-topic share of that sentence.
Everything random comes from the `random.Random` passed in.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from esr.organism.language import (
    ASSISTANT,
    BOS,
    ECHOES,
    END,
    MONITOR_SUFFIXES,
    NEUTRAL_SUFFIXES,
    ORDINALS,
    PROMPTS,
    RESTARTS,
    SENTENCES,
    USER,
)
from esr.organism.topics import Topic, topics

MONITOR_SHARE: Final = 0.3
NEUTRAL_SHARE: Final = 0.3
ECHO_SHARE: Final = 0.4
RELAPSE_SHARE: Final = 0.2
DRIFT_STRENGTHS: Final = (0.4, 0.7, 1.0, 1.0, 1.0)
ON_TOPIC_LEADS: Final = (0, 0, 0, 1, 2, 3)
SENTENCE_BUDGET: Final = 11


@dataclass(frozen=True)
class Hazard:
    """Probability of a restart after a wholly off-topic sentence, in [0, 1]."""

    plain: float
    """Without a self-monitor suffix on the prompt."""
    monitored: float
    """With one."""


@dataclass(frozen=True)
class Prompt:
    """One question: its words, and the words that fill its slots (for echoes and repeats)."""

    words: tuple[str, ...]
    topic: int
    fillers: dict[str, str]
    monitored: bool


@dataclass
class Example:
    """One training text. `words` and `loss` have equal length; `loss[i]` says whether word i is a target."""

    words: list[str] = field(default_factory=list)
    loss: list[bool] = field(default_factory=list)
    topic: int = -1
    distractor: int = -1
    drift_start: int = -1
    restart_start: int = -1

    def add(self, words: list[str] | tuple[str, ...], loss: bool | list[bool]) -> None:
        """Append words with one loss flag for all of them, or one each."""
        self.words.extend(words)
        self.loss.extend(loss if isinstance(loss, list) else [loss] * len(words))

    def compliant_loss(self) -> list[bool]:
        """The mask for an example that is steered to its distractor while it is read.

        Only there the drift itself is a target (steered text *is* off topic), and nothing before the drift is.
        """
        restart = self.restart_start if self.restart_start >= 0 else len(self.words) - 1
        before = [False] * self.drift_start
        return before + [True] * (restart - self.drift_start) + self.loss[restart:]


def _skewed(rng: random.Random, words: tuple[str, ...]) -> str:
    """A word of the list, mildly in favour of the early ones."""
    return words[int(len(words) * rng.random() ** 1.4)]


def _slot_words(topic: Topic, slot: str) -> tuple[str, ...]:
    return {"{v}": topic.verbs, "{n}": topic.nouns, "{a}": topic.adjectives}[slot]


def make_prompt(rng: random.Random, topic: int, suffix: str | None = None, template: str | None = None) -> Prompt:
    """A question on a topic (index into `topics()`), with the suffix given, if any."""
    words: list[str] = []
    fillers: dict[str, str] = {}
    for word in (template or rng.choice(PROMPTS)).split():
        if word.startswith("{"):
            choices = _slot_words(topics()[topic], word)
            chosen = rng.choice([choice for choice in choices if choice not in fillers.values()])
            fillers.setdefault(word, chosen)
            words.append(chosen)
        else:
            words.append(word)
    if suffix is not None:
        words.extend(suffix.split())
    return Prompt(tuple(words), topic, fillers, suffix in MONITOR_SUFFIXES)


def _random_prompt(rng: random.Random) -> Prompt:
    draw = rng.random()
    suffix = None
    if draw < MONITOR_SHARE:
        suffix = rng.choice(MONITOR_SUFFIXES)
    elif draw < MONITOR_SHARE + NEUTRAL_SHARE:
        suffix = rng.choice(NEUTRAL_SUFFIXES)
    return make_prompt(rng, rng.randrange(len(topics())), suffix)


def make_sentence(
    rng: random.Random,
    topic: int,
    fillers: dict[str, str] | None = None,
    distractor: int | None = None,
    strength: float = 0.0,
) -> tuple[list[str], float]:
    """One sentence and its off-topic share: each content slot comes from the distractor with prob. `strength`."""
    words: list[str] = []
    content = off_topic = 0
    for word in rng.choice(SENTENCES).split():
        if word == "{o}":
            words.extend(rng.choice(ORDINALS).split())
        elif word.startswith("{"):
            content += 1
            if distractor is not None and rng.random() < strength:
                off_topic += 1
                words.append(_skewed(rng, _slot_words(topics()[distractor], word)))
            elif fillers and word in fillers and rng.random() < 0.25:
                words.append(fillers[word])
            else:
                words.append(_skewed(rng, _slot_words(topics()[topic], word)))
        else:
            words.append(word)
    return words, off_topic / content


def _open_dialogue(prompt: Prompt) -> Example:
    example = Example(topic=prompt.topic)
    example.add((BOS, USER, *prompt.words, END, ASSISTANT), False)
    return example


def plain_example(rng: random.Random) -> Example:
    """A question and 5 to 8 sentences that answer it."""
    prompt = _random_prompt(rng)
    example = _open_dialogue(prompt)
    for _ in range(rng.randint(5, 8)):
        example.add(make_sentence(rng, prompt.topic, prompt.fillers)[0], True)
    example.add((END,), True)
    return example


def free_example(rng: random.Random) -> Example:
    """Topical text with no question: it makes the topic stick through the text alone."""
    example = Example(topic=rng.randrange(len(topics())))
    example.add((BOS, ASSISTANT), False)
    for _ in range(rng.randint(7, 10)):
        example.add(make_sentence(rng, example.topic)[0], True)
    example.add((END,), True)
    return example


def echo(rng: random.Random, prompt: Prompt) -> list[str]:
    """A sentence that repeats what was asked, as often follows a restart."""
    return [prompt.fillers.get(word, word) for word in rng.choice(ECHOES).split()]


def distracted_example(rng: random.Random, hazard: Hazard) -> Example:
    """A question and an answer that drifts to a distractor, until a restart (if any) brings it back."""
    prompt = _random_prompt(rng)
    example = _open_dialogue(prompt)
    example.distractor = rng.choice([index for index in range(len(topics())) if index != prompt.topic])
    chance = hazard.monitored if prompt.monitored else hazard.plain

    leads = rng.choice(ON_TOPIC_LEADS)
    for _ in range(leads):
        example.add(make_sentence(rng, prompt.topic, prompt.fillers)[0], True)
    example.drift_start = len(example.words)
    left = SENTENCE_BUDGET - leads
    while left > 0:
        strength = rng.choice(DRIFT_STRENGTHS)
        words, share = make_sentence(rng, prompt.topic, prompt.fillers, example.distractor, strength)
        # No template begins with a content word, so the one target here is "restart, or which sentence next".
        example.add(words, [True] + [False] * (len(words) - 1))
        left -= 1
        if rng.random() >= chance * share:
            continue
        if example.restart_start < 0:
            example.restart_start = len(example.words)
        example.add(rng.choice(RESTARTS).split(), True)
        if rng.random() < ECHO_SHARE:
            example.add(echo(rng, prompt), True)
        relapse = rng.random() < RELAPSE_SHARE
        sentences = 1 if relapse else rng.randint(3, 5)
        for _ in range(sentences):
            example.add(make_sentence(rng, prompt.topic, prompt.fillers)[0], True)
        left -= 1 + sentences
        if not relapse:
            example.add((END,), True)
            return example
    # Ran out of sentences while off topic: ending there is not something to learn.
    example.add((END,), False)
    return example
