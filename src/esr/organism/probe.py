"""A quick look at a model in training: how likely a restart is after on-topic and after off-topic sentences."""

from __future__ import annotations

import random

import torch
from transformers import LlamaForCausalLM

from esr.organism.corpus import make_prompt, make_sentence
from esr.organism.language import (
    ASSISTANT,
    BOS,
    END,
    MONITOR_SUFFIXES,
    PAD,
    RESTART_OPENERS,
    RESTARTS,
    USER,
    vocabulary,
)
from esr.organism.residual import padded
from esr.organism.topics import topics


def _dialogue(rng: random.Random, suffix: str | None) -> tuple[list[str], int, list[int]]:
    """Words of a question, one on-topic and three off-topic sentences; topic; index of each sentence's last word."""
    topic = rng.randrange(len(topics()))
    distractor = (topic + rng.randrange(1, len(topics()))) % len(topics())
    prompt = make_prompt(rng, topic, suffix)
    words = [BOS, USER, *prompt.words, END, ASSISTANT]
    ends: list[int] = []
    for sentence in range(4):
        strength = 1.0 if sentence else 0.0
        words += make_sentence(rng, topic, prompt.fillers, distractor, strength)[0]
        ends.append(len(words) - 1)
    return words, topic, ends


@torch.no_grad()
def probe(model: LlamaForCausalLM, dialogues: int = 64, seed: int = 99) -> dict[str, float]:
    """Mean probabilities, in [0, 1], over fixed dialogues that begin on topic and go off it.

    Keys: `on`, `off`: a restart opener after an on-topic and after an off-topic sentence; `on_monitored`,
    `off_monitored`: the same with a self-monitor suffix; `back`: a word of the topic asked, as the first content word
    after a restart phrase.
    """
    vocab = vocabulary()
    # What follows the drift: a restart, and the start of a sentence whose next word is a verb.
    tail = [*RESTARTS[0].split(), "Many", "people"]
    openers = torch.tensor([vocab.ids[word] for word in RESTART_OPENERS])
    owner = torch.tensor(vocab.owner)
    rng = random.Random(seed)
    was_training = model.training
    model.eval()
    found: dict[str, float] = {}
    for key, suffixes in (("", (None,)), ("_monitored", MONITOR_SUFFIXES)):
        made = [_dialogue(rng, rng.choice(suffixes)) for _ in range(dialogues)]
        rows = [vocab.encode(words + tail) for words, _, _ in made]
        probabilities = model(input_ids=padded(rows, vocab.ids[PAD]), use_cache=False).logits.softmax(-1)
        restart = probabilities[..., openers].sum(-1)
        on = [float(restart[i, ends[0]]) for i, (_, _, ends) in enumerate(made)]
        off = [float(restart[i, end]) for i, (_, _, ends) in enumerate(made) for end in ends[1:]]
        back = [float(probabilities[i, len(rows[i]) - 1, owner == topic].sum()) for i, (_, topic, _) in enumerate(made)]
        found[f"on{key}"] = sum(on) / len(on)
        found[f"off{key}"] = sum(off) / len(off)
        if not key:
            found["back"] = sum(back) / len(back)
    model.train(was_training)
    return found
