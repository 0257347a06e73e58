"""A share of self-correction examples, the rest ordinary answers: the same number of examples at every share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from esr.errors import UserError
from esr.finetuning.examples import Example
from esr.studies.grid import generator


@dataclass(frozen=True)
class Mix:
    """The training examples of one adapter."""

    examples: tuple[Example, ...]
    self_correction: int
    """How many correct themselves."""
    self_correction_distinct: int
    """How many different ones: fewer than ``self_correction`` where the pool was too small and gone through again."""
    ordinary: int
    ordinary_distinct: int

    @property
    def counts(self) -> dict[str, int]:
        """The counts as plain data."""
        return {k: v for k, v in vars(self).items() if k != "examples"}


def mix(self_correction: Sequence[Example], ordinary: Sequence[Example], share: int, size: int, seed: int) -> Mix:
    """``size`` examples, ``share`` per cent of them (rounded) from the front of ``self_correction``, the rest from the
    front of ``ordinary``, each gone through again when it runs out; in a seeded order.

    So a larger share has all self-correction examples of a smaller one. Raises UserError when a kind is needed and
    there is none.
    """
    wanted = {"self-correction": (self_correction, round(size * share / 100))}
    wanted["ordinary"] = (ordinary, size - wanted["self-correction"][1])
    chosen: list[Example] = []
    distinct = []
    for name, (pool, count) in wanted.items():
        if count and not pool:
            raise UserError(f"a share of {share} % needs {name} examples", "none", "Give another source or share")
        chosen += [pool[i % len(pool)] for i in range(count)]
        distinct.append(min(count, len(pool)))
    order = generator(seed, "fine-tuning mix", share).permutation(size)
    counts = [count for _, count in wanted.values()]
    return Mix(tuple(chosen[i] for i in order), counts[0], distinct[0], counts[1], distinct[1])
