"""Restart promotion: how much a direction itself raises the logits of restart words.

A direction that simply says "wait" is a confound: the restart it causes is its content, not resistance to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from esr.errors import UserError
from esr.subjects.loading import Subject

RESTART_WORDS = (
    "Wait", "wait", "Hold", "Sorry", "sorry", "Hmm", "Oops", "Actually", "actually", "Apologies", "apologize",
    "mistake", "wrong", "correct", "again", "restart", "instead", "topic",
)  # fmt: skip


def restart_token_ids(subject: Subject, words: Sequence[str] = RESTART_WORDS) -> list[int]:
    """First token of each word, with and without a leading space; unknown and special tokens are left out."""
    tokenizer = subject.tokenizer
    ids = set()
    for word in words:
        for text in (word, f" {word}"):
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
            if tokens and tokens[0] not in tokenizer.all_special_ids:
                ids.add(int(tokens[0]))
    if not ids:
        raise UserError("the tokenizer knows at least one restart word", None)
    return sorted(ids)


@torch.no_grad()
def restart_promotion(subject: Subject, vectors: NDArray[np.float32], token_ids: Sequence[int]) -> NDArray[np.float64]:
    """How far each direction stands out in pushing restart words, in standard deviations of its logit effects.

    vectors: [n, d_model]. The direct effect of a direction d on the logits is W_U (g * d), with W_U the unembedding
    and g the final norm's gain. Returned per direction: (mean effect on ``token_ids`` - mean effect on all tokens) /
    standard deviation of its effects over the vocabulary. [n]
    """
    head = subject.model.get_output_embeddings().weight
    gain = _final_norm_gain(subject)
    effects = torch.from_numpy(np.array(vectors)).to(head.device, torch.float32)
    if gain is not None:
        effects = effects * gain.to(head.device, torch.float32)
    out = []
    for chunk in torch.split(effects, 64):  # the vocabulary may be 256k wide
        logits = chunk @ head.float().T
        restart = logits[:, list(token_ids)].mean(1)
        out.append((restart - logits.mean(1)) / logits.std(1).clamp(min=1e-12))
    return torch.cat(out).cpu().double().numpy()


def _final_norm_gain(subject: Subject) -> torch.Tensor | None:
    """The gain of the norm before the unembedding; Gemma stores it as weight - 1."""
    decoder = subject.model.get_decoder() if hasattr(subject.model, "get_decoder") else subject.model
    norm = getattr(decoder, "norm", None) or getattr(decoder, "ln_f", None)
    weight: torch.Tensor | None = getattr(norm, "weight", None)
    if weight is None:
        return None
    return weight + 1 if type(norm).__name__.startswith("Gemma") else weight
