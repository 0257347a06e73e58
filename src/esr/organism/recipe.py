"""The whole recipe: train one chain, then build the folder of each model it leaves.

``train(0, Path("runs/seed0"))`` leaves runs/seed0/organism, runs/seed0/organism-naive and
runs/seed0/organism-untrained-recovery.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from esr.organism.schedule import DEFAULT_SCHEDULE, Phase
from esr.organism.shipping import DictionarySize, ship
from esr.organism.training import Progress, Size, train_chain

log = logging.getLogger(__name__)


def train(
    seed: int,
    out_dir: Path,
    *,
    schedule: Sequence[Phase] = DEFAULT_SCHEDULE,
    size: Size | None = None,
    dictionary: DictionarySize | None = None,
    save_every: int = 100,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Path]:
    """Train the organism from scratch; returns the folder of each model, by name.

    Kill it and call it again with the same arguments: it goes on from `out_dir`, and folders that are complete are
    kept. `on_progress` is called about every 50 steps; the same lines go to the `esr.organism` logger.
    Raises `UserError` when `out_dir` holds a run of another seed, schedule or size.
    """
    trained = train_chain(seed, out_dir, schedule, size, save_every=save_every, on_progress=on_progress)
    folders: dict[str, Path] = {}
    for name, source in trained.items():
        folder = folders[name] = out_dir / name
        # The card is written last, so its presence means the folder is complete.
        if not (folder / "CARD.md").exists():
            fidelity = ship(source, folder, seed, schedule, dictionary)
            log.info("seed %d: %s ready, SAE FVU %.4f, %d alive", seed, name, fidelity.fvu, fidelity.alive)
    return folders
