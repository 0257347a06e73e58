"""Contrastive vectors: what the residual stream holds on one set of texts and not on another.

    d = mean over positive texts of r(t)  -  mean over negative texts of r(t)

r(t), shape [d_model], is the mean of the residual stream over some of text t's token positions, as it leaves one
decoder layer. Every text counts the same, however long it is. The difference of means is the steering vector of
contrastive activation addition (Rimsky et al. 2024, arXiv 2312.06681); arXiv 2602.06941 steered with such vectors from
encyclopedia articles in its rebuttal. The first token is never read: in most models its residual stream is some
hundred times longer than any other's and says nothing about the text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esr.errors import UserError
from esr.subjects.spec import SubjectSpec
from esr.subjects.vectors import add_vector, check_addable

if TYPE_CHECKING:
    from esr.steering.hf import HFEngine
    from esr.subjects.loading import Subject

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ContrastiveVector:
    """A difference of means, and what tells whether it is a good one."""

    vector: NDArray[np.float32] = field(repr=False)
    """Shape [d_model]: the difference itself, or scaled to ``residual_norm`` if that was asked for."""
    layer: int
    """0-based decoder layer whose output was read."""
    position: str
    """Which tokens of a text were averaged: ``mean``, ``last`` or ``last:N``."""
    chat: bool
    """Whether texts were put into the chat template as a user's turn."""
    scaled: bool
    texts: tuple[int, int]
    """How many texts: positive, negative."""
    tokens: tuple[int, int]
    """How many token positions were averaged: positive, negative."""
    difference_norm: float
    """Length of the difference of means, before any scaling."""
    residual_norm: float
    """Mean length of the residual stream over the positions read. A boost of ``residual_norm`` / length of the vector
    adds as much as is there."""
    auc: float
    """How well the direction separates texts it was not made from: probability that a positive text projects further
    than a negative one, ties half (0.5 is chance). Every second text is held out, projected on the difference of means
    of the others; NaN when a side has only one text. The vector itself is made from all texts."""
    held_out: tuple[int, int]
    """How many texts ``auc`` is from: positive, negative."""

    @property
    def norm(self) -> float:
        """Length of the vector."""
        return float(np.linalg.norm(self.vector.astype(np.float64)))

    def about(self) -> dict[str, Any]:
        """Everything but the numbers, as plain data."""
        return {
            "layer": self.layer, "position": self.position, "chat": self.chat, "scaled": self.scaled,
            "texts": list(self.texts), "tokens": list(self.tokens), "norm": self.norm,
            "difference_norm": self.difference_norm, "residual_norm": self.residual_norm,
            "auc": None if math.isnan(self.auc) else self.auc, "held_out": list(self.held_out),
        }  # fmt: skip


def contrastive_vector(
    source: HFEngine | Subject,
    positive: Sequence[str],
    negative: Sequence[str],
    layer: int | None = None,
    position: str = "mean",
    *,
    chat: bool = False,
    scale: bool = False,
) -> ContrastiveVector:
    """The difference of means between ``positive`` and ``negative`` texts.

    ``layer``: whose output is read; default: the one steered. ``position``: ``mean`` over all tokens of a text but its
    first, ``last`` for its last one, ``last:N`` for its last N (a shorter text gives all it has but the first).
    ``chat``: texts are a user's turn in the subject's chat template, the last token then being the one that predicts
    the answer; else they are tokenized as they are. ``scale``: give the vector the length ``residual_norm``; else it
    is the difference as it comes.

    Texts are read one at a time into running sums in float64, so memory does not grow with their number. Raises
    UserError before anything is read for an unknown position or layer, a text that is empty, stands twice, has one
    token only or does not fit into the context; and when the two means are equal.
    """
    from esr.steering.hf import HFEngine
    from esr.subjects.layers import check_layer

    engine = source if isinstance(source, HFEngine) else HFEngine(source)
    subject = engine.subject
    layer = check_layer("layer", subject.steer_layer if layer is None else layer, subject.n_layers)
    last = _last(position)
    _check_texts({"positive": positive, "negative": negative})
    sides = [_Side([_token_ids(subject, text, chat) for text in texts]) for texts in (positive, negative)]

    guess = np.zeros(0)
    for half in (0, 1):
        for side in sides:
            for ids in side.ids[half::2]:
                start = 1 if last is None else max(1, len(ids) - last)
                h = engine.residual(ids, layer)[start:].cpu().double().numpy()
                mean = h.mean(axis=0)
                if half:
                    side.projections.append(float(mean @ guess))
                side.add(mean, h)
        if not half:
            guess = sides[0].mean - sides[1].mean

    difference = sides[0].mean - sides[1].mean
    length = float(np.linalg.norm(difference))
    if length == 0:
        raise UserError("positive and negative texts differ in the mean", "a difference of 0", "Choose other texts")
    residual_norm = (sides[0].lengths + sides[1].lengths) / (sides[0].tokens + sides[1].tokens)
    return ContrastiveVector(
        vector=np.asarray(difference * (residual_norm / length if scale else 1.0), dtype=np.float32),
        layer=layer,
        position=position,
        chat=chat,
        scaled=scale,
        texts=(sides[0].texts, sides[1].texts),
        tokens=(sides[0].tokens, sides[1].tokens),
        difference_norm=length,
        residual_norm=residual_norm,
        auc=_auc(sides[0].projections, sides[1].projections),
        held_out=(len(sides[0].projections), len(sides[1].projections)),
    )


def make_vector(
    spec: SubjectSpec,
    out: Path,
    name: str,
    positive: Path,
    negative: Path,
    *,
    layer: int | None = None,
    position: str = "mean",
    chat: bool = False,
    scale: bool = False,
    paragraphs: bool = False,
    replace: bool = False,
) -> ContrastiveVector:
    """``contrastive_vector`` of two files of texts, added to the safetensors file ``out`` under ``name``.

    The subject is loaded without its SAE. ``esr.subjects.vectors.read_about`` says for each name which model, layer,
    position and texts it is from. Raises UserError as ``read_texts``, ``contrastive_vector``, ``load_subject`` and
    ``add_vector`` do, for files and names before the model is loaded.
    """
    texts = [read_texts(path, paragraphs=paragraphs) for path in (positive, negative)]
    _last(position)
    _check_texts({str(positive): texts[0], str(negative): texts[1]})
    check_addable(out, name, replace=replace)
    from esr.subjects.loading import load_subject

    subject = load_subject(spec.model_copy(update={"sae": None, "labels": None, "lexicon": None}))
    check_addable(out, name, replace=replace, d_model=subject.d_model)
    made = contrastive_vector(subject, texts[0], texts[1], layer, position, chat=chat, scale=scale)
    about = {"model": spec.model, "fingerprint": subject.fingerprint, "dtype": spec.dtype, **made.about()}
    add_vector(out, name, made.vector, about, replace=replace)
    return made


def read_texts(path: Path, *, paragraphs: bool = False) -> list[str]:
    """Texts of a UTF-8 file in order: one per line, or one per paragraph (separated by blank lines, line breaks kept).

    Raises UserError for a file that is missing, no text, or empty.
    """
    rule = "a file of texts is readable UTF-8 text"
    try:
        content = path.expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(rule, f"{path}, which is not UTF-8", "Save it as plain text in UTF-8") from error
    except OSError as error:
        raise UserError(rule, f"{path} ({error.strerror})") from error
    pieces = re.split(r"\n[^\S\n]*\n", content) if paragraphs else content.split("\n")
    texts = [piece.strip() for piece in pieces if piece.strip()]
    if not texts:
        raise UserError("a file of texts holds at least one", f"none in {path}", "Write one text per line")
    return texts


class _Side:
    """Running sums over the texts of one side."""

    def __init__(self, ids: list[tuple[int, ...]]) -> None:
        self.ids = ids
        self.total: Floats | float = 0.0
        self.texts = self.tokens = 0
        self.lengths = 0.0
        self.projections: list[float] = []

    def add(self, mean: Floats, h: Floats) -> None:
        """``mean``: the text's, shape [d_model]; ``h``: what it is the mean of, shape [tokens, d_model]."""
        self.total = self.total + mean
        self.texts += 1
        self.tokens += len(h)
        self.lengths += float(np.linalg.norm(h, axis=1).sum())

    @property
    def mean(self) -> Floats:
        """Of the texts added so far, shape [d_model]."""
        return np.asarray(self.total / self.texts, dtype=np.float64)


def _last(position: str) -> int | None:
    """How many last tokens are read; None for all but the first."""
    match = re.fullmatch(r"mean|last(?::([1-9][0-9]{0,5}))?", position)
    if match is None:
        raise UserError("a position is mean, last, or last:N with N from 1", position)
    return None if position == "mean" else int(match[1] or 1)


def _check_texts(sides: dict[str, Sequence[str]]) -> None:
    """Raises UserError for a side without texts, an empty text, and one that stands twice."""
    for name, texts in sides.items():
        if not texts:
            raise UserError("a contrast has texts on both sides", f"none in {name}")
        if not all(text.strip() for text in texts):
            raise UserError("a text is not empty", f"an empty one in {name}")
    twice = [text for text, n in Counter(text for texts in sides.values() for text in texts).items() if n > 1]
    if twice:
        raise UserError("each text stands once on one side", f"{twice[0][:80]!r} more than once", "Remove one of them")


def _token_ids(subject: Subject, text: str, chat: bool) -> tuple[int, ...]:
    from esr.subjects.chat import chat_ids

    ids = chat_ids(subject, subject.spec, text) if chat else tuple(subject.tokenizer(text)["input_ids"])
    most = subject.context or math.inf
    if not 2 <= len(ids) <= most:
        raise UserError(
            f"a text has at least 2 tokens, for its first is not read, and at most {most}, the model's context",
            f"{len(ids)} in {text[:80]!r}",
            "Leave it out, or split it",
        )
    return ids


def _auc(positive: list[float], negative: list[float]) -> float:
    """Probability that a positive value is above a negative one, ties half: Mann and Whitney's U / (n m)."""
    if not positive or not negative:
        return math.nan
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))
