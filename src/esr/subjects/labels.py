"""Labels of SAE latents, from a file."""

from __future__ import annotations

import json
from pathlib import Path

from esr.errors import UserError
from esr.subjects.latents import check_latent


def read_labels(path: Path, d_sae: int | None = None) -> dict[int, str]:
    """Read a JSON object {latent: label}. Raises UserError for anything else, or a latent outside
    0..d_sae-1."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError("a file of labels is readable JSON in UTF-8", f"{path} ({type(error).__name__})") from error
    if not isinstance(data, dict) or not all(k.isdecimal() and isinstance(v, str) for k, v in data.items()):
        raise UserError('a file of labels is one JSON object, {"latent number": "label"}', str(path))
    labels = {int(latent): label for latent, label in data.items()}
    if d_sae is not None:
        for latent in labels:
            check_latent(latent, d_sae)
    return labels
