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

STRONG: Final = 0.5
"""A firing is strong from this share of the latent's largest activation; labels come from strong firings."""
PURE: Final = 0.6
"""Share of a latent's strong activation that one topic must have for the label to name it."""
CONTENT: Final = 0.5
"""Share of it that must fall on content words for a label by the words read rather than by the text around."""
SHOWN_WORDS: Final = 3
MIN_FIRINGS: Final = 5


@dataclass(frozen=True)
class LatentRecord:
    """What one latent does over corpus text."""

    latent: int
    label: str
    kind: str
    """`topic`: fires on one topic's words. `context`: on shared words inside one topic's text, mostly just before
    that topic's words. `restart`: within restart phrases. `words`: no single topic. `dead`: hardly ever fires."""
    topic: str | None
    purity: float
    """Share of its strong activation on one topic's words (kind `topic`), else within one topic's text, in [0, 1]."""
    density: float
    """Share of tokens on which it is active."""
    max_activation: float
    """Largest activation seen, in residual units (decoder rows have norm 1)."""


@dataclass(frozen=True)
class Tally:
    """Sums of strong activation, one column per latent."""

    at_word: Tensor
    """[words, latents] by the word read."""
    before_word: Tensor
    """[words, latents] by the word that comes next."""
    in_topic: Tensor
    """[topics, latents] by the topic of the last content word."""
    firings: Tensor
    """[latents] tokens with any activation."""
    largest: Tensor
    """[latents]."""


@torch.no_grad()
def tally(sae: SAE, residuals: Residuals, chunk: int = 8192) -> Tally:
    """Two passes over `residuals`: the largest activations, then the sums of those that are strong."""
    vocab = vocabulary()
    latents = sae.W_dec.shape[0]
    parts = [slice(start, start + chunk) for start in range(0, len(residuals.ids), chunk)]
    firings, largest = torch.zeros(latents), torch.zeros(latents)
    for part in parts:
        activations = sae.encode(residuals.states[part])
        firings += (activations > 0).sum(0)
        largest = torch.maximum(largest, activations.amax(0))
    at_word, before_word = (torch.zeros(len(vocab.words), latents) for _ in range(2))
    in_topic = torch.zeros(len(vocab.topics), latents)
    for part in parts:
        activations = sae.encode(residuals.states[part])
        strong = activations * (activations >= STRONG * largest)
        at_word.index_add_(0, residuals.ids[part], strong)
        before_word.index_add_(0, residuals.next_ids[part], strong)
        known = residuals.context[part] >= 0
        in_topic.index_add_(0, residuals.context[part][known], strong[known])
    return Tally(at_word, before_word, in_topic, firings, largest)


def label_latents(sae: SAE, residuals: Residuals) -> list[LatentRecord]:
    """One record per latent, from activations over `residuals`."""
    sums = tally(sae, residuals)
    owner = torch.tensor(vocabulary().owner)
    on_topic = torch.zeros_like(sums.in_topic).index_add_(0, owner[owner >= 0], sums.at_word[owner >= 0])
    return [_record(index, sums, on_topic, len(residuals.ids)) for index in range(len(sums.firings))]


def _record(latent: int, sums: Tally, on_topic: Tensor, tokens: int) -> LatentRecord:
    vocab = vocabulary()
    at_word, before_word = sums.at_word[:, latent], sums.before_word[:, latent]
    firings = int(sums.firings[latent])

    def made(kind: str, label: str, topic: int | None, purity: float) -> LatentRecord:
        name = None if topic is None else vocab.topics[topic].name
        largest = round(float(sums.largest[latent]), 3)
        return LatentRecord(latent, label, kind, name, round(purity, 3), firings / tokens, largest)

    if firings < MIN_FIRINGS:
        return made("dead", "dead", None, 0.0)
    topic, topic_purity = _leader(on_topic[:, latent])
    context, context_purity = _leader(sums.in_topic[:, latent])
    on_content = float(on_topic[:, latent].sum() / at_word.sum())
    if on_content >= CONTENT and topic_purity >= PURE:
        return made("topic", f"{vocab.topics[topic].name}: {_top_words(at_word, topic)}", topic, topic_purity)
    if on_content < CONTENT and context_purity >= PURE:
        coming = _top_words(before_word, context)
        label = f"{vocab.topics[context].name}: before {coming}" if coming else f"{vocab.topics[context].name}: text"
        return made("context", label, context, context_purity)
    shown = _top_words(at_word)
    if set(shown.split(", ")) <= restart_only_words():
        return made("restart", f"restart phrase: {shown}", None, context_purity)
    return made("words", f"words: {shown}", None, max(topic_purity, context_purity))


def _leader(by_topic: Tensor) -> tuple[int, float]:
    """The topic with most activation, and its share of all; share 0 when there is none."""
    total = float(by_topic.sum())
    return int(by_topic.argmax()), float(by_topic.max()) / total if total else 0.0


def _top_words(by_word: Tensor, topic: int | None = None) -> str:
    """The words with most activation, of one topic or of all, joined for a label."""
    vocab = vocabulary()
    weights = by_word.clone()
    if topic is not None:
        weights[torch.tensor(vocab.owner) != topic] = 0
    best = weights.topk(SHOWN_WORDS)
    return ", ".join(vocab.words[int(i)] for i, value in zip(best.indices, best.values, strict=True) if value > 0)


def as_columns(records: list[LatentRecord]) -> dict[str, list[Any]]:
    """The records as one list per field, for `latents.json`."""
    rows = [asdict(record) for record in records]
    return {key: [row[key] for row in rows] for key in rows[0]}
