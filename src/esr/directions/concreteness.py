"""Concreteness of a direction's label, 0-100: can one tell whether a text is about it?

Published studies ask a language model; ``RuleGrader`` needs none and knows the organism's labels. Both published
cuts are here: the paper keeps the upper half, the released code keeps scores of at least 65.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

_VAGUE = re.compile(
    r"\b(words?|tokens?|punctuation|syntax|grammar|the|of|and|pronouns?|prepositions?|position|beginning|end"
    r"|start|sentences?|dead|unknown|various|general|abstract|formatting|code syntax)\b",
    re.IGNORECASE,
)


class ConcretenessGrader(Protocol):
    """Grades labels. A model-graded one plugs in here."""

    name: str

    def grade(self, labels: Sequence[str]) -> list[float]:
        """One score per label, 0-100; an empty label is 0."""
        ...


class RuleGrader:
    """100 for a label that names things; less for each word about grammar or position; 0 for none or ``dead``."""

    name = "rule"

    def grade(self, labels: Sequence[str]) -> list[float]:
        """One score per label."""
        return [self._grade(label) for label in labels]

    @staticmethod
    def _grade(label: str) -> float:
        words = re.findall(r"[^\W\d_]+", label)
        if not words or label.strip().lower() == "dead":
            return 0.0
        vague = len(_VAGUE.findall(label))
        return 100.0 * max(0, len(words) - 2 * vague) / len(words)


def upper_half(scores: Mapping[int, float]) -> set[int]:
    """The paper's cut: keep the half with the higher scores (the middle one too; ties go to the lower id)."""
    ordered = sorted(scores, key=lambda i: (-scores[i], i))
    return set(ordered[: -(-len(ordered) // 2)])


def at_least(scores: Mapping[int, float], minimum: float = 65.0) -> set[int]:
    """The released code's cut."""
    return {i for i, score in scores.items() if score >= minimum}
