"""Automatic labels for the latents of the organism's SAE, from the words they fire on.

A label states what was seen, no more: a topic only where the activation is nearly all on one topic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from sae_lens import SAE
from torch import Tensor

from esr.organism.dictionary import Residuals
from esr.organism.language import restart_only_words, vocabulary

PURE: Final = 0.6
"""Share of a latent's activation that one topic must have for the label to name it."""
CONTENT: Final = 0.5
"""Share of the activation that must fall on content words for a label by word rather than by context."""
SHOWN_WORDS: Final = 3
MIN_FIRINGS: Final = 5


@dataclass(frozen=True)
class LatentRecord:
    """What one latent does over corpus text."""

    latent: int
    label: str
    kind: str
    """`topic` (fires on one topic's words), `context` (on shared words inside one topic's text), `restart`,
    `words` (no single topic) or `dead` (fewer than five firings in the sample)."""
    topic: str | None
    purity: float
    """Share of its activation on (kind `topic`) or within (other kinds) the topic it fires most for, in [0, 1]."""
    density: float
    """Share of tokens on which it is active."""
    max_activation: float
    """Largest activation seen, in residual units (decoder rows have norm 1)."""


@torch.no_grad()
def label_latents(sae: SAE, residuals: Residuals, chunk: int = 8192) -> list[LatentRecord]:
    """One record per latent, from activations over `residuals`."""
    vocab = vocabulary()
    latents, topic_count = sae.W_dec.shape[0], len(vocab.topics)
    by_word = torch.zeros(len(vocab.words), latents)
    by_context = torch.zeros(topic_count, latents)
    firings = torch.zeros(latents)
    largest = torch.zeros(latents)
    for start in range(0, len(residuals.ids), chunk):
        part = slice(start, start + chunk)
        activations = sae.encode(residuals.states[part])
        by_word.index_add_(0, residuals.ids[part], activations)
        context = residuals.context[part]
        by_context.index_add_(0, context[context >= 0], activations[context >= 0])
        firings += (activations > 0).sum(0)
        largest = torch.maximum(largest, activations.amax(0))
    owner = torch.tensor(vocab.owner)
    by_topic = torch.zeros(topic_count, latents).index_add_(0, owner[owner >= 0], by_word[owner >= 0])
    return [
        _record(index, by_word[:, index], by_topic[:, index], by_context[:, index], float(largest[index]),
                int(firings[index]), len(residuals.ids))
        for index in range(latents)
    ]  # fmt: skip


def _record(
    latent: int, by_word: Tensor, by_topic: Tensor, by_context: Tensor, largest: float, firings: int, tokens: int
) -> LatentRecord:
    vocab = vocabulary()

    def made(kind: str, label: str, topic: int | None, purity: float) -> LatentRecord:
        name = None if topic is None else vocab.topics[topic].name
        return LatentRecord(latent, label, kind, name, round(purity, 3), firings / tokens, round(largest, 3))

    if firings < MIN_FIRINGS:
        return made("dead", "dead", None, 0.0)
    total = float(by_word.sum())
    top_words = [vocab.words[int(index)] for index in by_word.topk(SHOWN_WORDS).indices if by_word[index] > 0]
    shown = ", ".join(top_words)
    topic, context = int(by_topic.argmax()), int(by_context.argmax())
    on_content = float(by_topic.sum()) / total
    topic_purity = float(by_topic[topic]) / (float(by_topic.sum()) or 1.0)
    context_purity = float(by_context[context]) / (float(by_context.sum()) or 1.0)
    if on_content >= CONTENT and topic_purity >= PURE:
        own = [word for word in top_words if word in vocab.topics[topic].words]
        return made("topic", f"{vocab.topics[topic].name}: {', '.join(own)}", topic, topic_purity)
    if on_content < CONTENT and context_purity >= PURE:
        label = f"{vocab.topics[context].name} text, at: {shown}"
        return made("context", label, context, context_purity)
    if set(top_words) <= restart_only_words():
        return made("restart", f"restart phrase: {shown}", None, context_purity)
    return made("words", f"words: {shown}", None, max(topic_purity, context_purity))


def as_columns(records: list[LatentRecord]) -> dict[str, list[Any]]:
    """The records as one list per field, for `latents.json`."""
    rows = [asdict(record) for record in records]
    return {key: [row[key] for row in rows] for key in rows[0]}
