"""The prompts of a study: a bundled set by name, or the user's file."""

from __future__ import annotations

from pathlib import Path

from esr.errors import UserError
from esr.subjects.prompts import how_to_prompts, read_prompts
from esr.subjects.spec import ORGANISMS, packaged_folder


def study_prompts(name: str, folder: Path, model: str) -> list[str]:
    """``how-to`` and ``how-to-held-out`` are bundled, ``organism`` belongs to the packaged subject; anything else is
    a file relative to the study's folder. Raises UserError for a file that is no list of prompts."""
    if name == "how-to":
        return how_to_prompts()
    if name == "how-to-held-out":
        return how_to_prompts(held_out=True)
    if name == "organism":
        if model not in ORGANISMS:
            raise UserError("the prompts `organism` go with a bundled organism", model, "Name a prompt file")
        return read_prompts(packaged_folder(model) / "prompts.txt")
    return read_prompts(folder / name)
