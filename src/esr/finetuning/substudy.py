"""The study of one adapter: the parent's directions, prompts and seeds, thresholds of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from esr.errors import UserError
from esr.finetuning.settings import FOLDER
from esr.studies.config import StudyConfig, parse_config, read_config
from esr.studies.new import write_study
from esr.studies.study import Study

EXPERIMENTS = ("no-steering", "incidence")
_UP = Path("..") / ".."
"""From a share's folder to the parent study's."""


def share_folder(parent: Path, share: int) -> Path:
    """Where the adapter of a share (per cent) and its study are."""
    return parent / FOLDER / f"share-{share:02d}"


def adapter_study(parent: Study, share: int) -> StudyConfig:
    """Write the study of a share's adapter, or find it there: same prompts, seeds, sampling, judge and calibration
    settings, and the parent's calibrated directions, chosen by nothing but that.

    The adapter is named by its absolute path, so a study that was moved can be read but not gone on with. Raises
    UserError when a study is there that has other settings.
    """
    folder = share_folder(parent.folder, share)
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(parent, share, folder)
    if not (folder / "study.toml").exists():
        return write_study(folder, settings)
    found = read_config(folder)
    if found.locked() != parse_config(settings, "the study to be").locked():
        raise UserError(
            "the study of an adapter has its parent's settings", f"others in {folder / 'study.toml'}",
            "Put them back, or remove the folder to begin anew",
        )  # fmt: skip
    return found


def _settings(parent: Study, share: int, folder: Path) -> dict[str, Any]:
    settings = parent.config.model_dump(mode="json")
    chosen = parent.directions.set_index("id")
    calibrated = parent.calibration.dropna(subset=["threshold"])["direction"].tolist()
    directions = settings["directions"] | {
        "count": len(calibrated), "relevance": "none", "concreteness": "none", "exclude_promoted": False,
        "efficacy_boosts": [],
    }  # fmt: skip
    if parent.config.directions.vectors is None:
        directions["latents"] = sorted(int(chosen.loc[id, "latent"]) for id in calibrated)
    else:
        directions["vectors"] = _write_vectors(parent, calibrated, folder)
    settings["name"] = f"{parent.config.name[:150]}, fine-tuned with {share} % self-correction"
    settings["experiments"] = list(EXPERIMENTS)
    settings.pop("experiment", None)  # those of other experiments
    settings["subject"]["adapter"] = str((folder / "adapter").resolve())
    settings["directions"] = directions
    settings["prompts"]["file"] = _from_share(parent.folder, settings["prompts"]["file"])
    if settings["judge"]["rubric"] is not None:
        settings["judge"]["rubric"] = _from_share(parent.folder, settings["judge"]["rubric"])
    return settings


def _from_share(parent: Path, name: str) -> str:
    """A file of the parent study as a share's study names it; a bundled set keeps its name."""
    return str(_UP / name) if (parent / name).is_file() and not Path(name).is_absolute() else name


def _write_vectors(parent: Study, ids: list[str], folder: Path) -> str:
    """The chosen ones of the parent's vectors, in a file of the share's own."""
    import json

    import numpy as np
    from safetensors.numpy import save_file

    from esr.subjects.vectors import read_vectors

    assert parent.config.directions.vectors is not None
    vectors = read_vectors(parent.folder / parent.config.directions.vectors)
    names = [id.removeprefix("vector:") for id in ids]
    stacked = np.stack([vectors[name] for name in names])
    save_file({"vectors": stacked}, folder / "vectors.safetensors", metadata={"names": json.dumps(names)})
    return "vectors.safetensors"
