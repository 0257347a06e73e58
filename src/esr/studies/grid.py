"""The grid: which direction meets which prompt under which seed. Everything random hangs off the master seed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cell:
    """One place of the grid; every condition runs each cell once."""

    direction: int
    """Index into the study's directions."""
    prompt_index: int
    seed: int


def content_key(*parts: Any) -> str:
    """SHA-256 of plain data in canonical JSON, 32 hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def generator(master_seed: int, *names: Any) -> np.random.Generator:
    """A random generator for one named purpose: it does not depend on what else was drawn, or when."""
    return np.random.default_rng([master_seed, int(content_key(*names)[:16], 16)])


def draw_cells(
    master_seed: int, purpose: str, direction_ids: list[str], n_prompts: int, per_direction: int
) -> list[Cell]:
    """``per_direction`` cells for each direction: prompts without replacement (starting over when there are fewer
    prompts than cells), one seed each. A direction's cells depend on its id, not on its neighbours."""
    cells = []
    for index, direction in enumerate(direction_ids):
        rng = generator(master_seed, purpose, direction)
        rounds = -(-per_direction // n_prompts)
        prompts = np.concatenate([rng.permutation(n_prompts) for _ in range(rounds)])[:per_direction]
        seeds = rng.integers(0, 2**31, size=per_direction)
        cells += [Cell(index, int(p), int(s)) for p, s in zip(prompts, seeds, strict=True)]
    return cells
