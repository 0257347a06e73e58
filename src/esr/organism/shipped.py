"""Where the shipped models are."""

from __future__ import annotations

from pathlib import Path

from esr.errors import UserError
from esr.organism.schedule import MODEL_NAMES


def shipped_folder(name: str = "organism") -> Path:
    """Folder of a shipped model: `organism`, `organism-naive` or `organism-untrained-recovery`."""
    folder = Path(__file__).parent / "weights" / name
    if name not in MODEL_NAMES or not folder.is_dir():
        raise UserError("The package ships these models: " + ", ".join(MODEL_NAMES), name, "Choose one of them")
    return folder
