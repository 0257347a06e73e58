"""The prompts detectors are looked for on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from esr.directions.pairs import canonical
from esr.errors import UserError
from esr.studies.prompts import study_prompts
from esr.subjects.spec import ORGANISMS

KEY = "otd-discovery"
FEWEST_PROMPTS = 4


def discovery_prompts(folder: Path, model: str, asked: Sequence[str], name: str | None, disjoint: bool) -> list[str]:
    """The prompts of a file or bundled set; None: the packaged organism's, else all bundled how-to ones. ``disjoint``:
    without ``asked``, those of the study. Raises UserError when fewer than four are left."""
    names = [name] if name else ["organism"] if model in ORGANISMS else ["how-to-held-out", "how-to"]
    found = {canonical(p): p for n in names for p in study_prompts(n, folder, model)}
    own = {canonical(p) for p in asked} if disjoint else set()
    left = [prompt for key, prompt in found.items() if key not in own]
    if len(left) < FEWEST_PROMPTS:
        raise UserError(
            f"detectors are looked for on {FEWEST_PROMPTS} prompts at least"
            + (" that the study does not ask" if disjoint else ""),
            f"{len(left)} of {' and '.join(names)}",
            f'Name a file with more: [experiment] {KEY} = {{ prompts = "FILE" }}',
        )
    return left
