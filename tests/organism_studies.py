"""Small studies of the packaged organism, which really corrects itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from esr.organism.demo import demo_prompts, demo_settings
from esr.studies.config import StudyConfig, read_config
from esr.studies.new import write_study
from esr.studies.progress import Silent
from esr.studies.runner import run_study

SMALL: dict[str, Any] = {
    "boost-sweep": {"factors": [0.5, 1.0, 2.0], "levels": [-1.0, 1.0]},
    "prefill": {"shares": [0.25, 0.5]},
    "steer-then-release": {"shares": [0.25]},
    "otd-discovery": {"responses_per_prompt": 1, "top": 6},
    "random-ablation": {"sets": 2},
    "single-ablation": {"top": 2},
    "branch": {"times": 2},
}


def make_organism_study(folder: Path, experiments: list[str], count: int = 8, per_direction: int = 3) -> StudyConfig:
    """Write a small study that runs these experiments."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.txt").write_text("\n".join(demo_prompts("organism")) + "\n", encoding="utf-8")
    settings = demo_settings("organism", experiments)
    settings["directions"]["count"] = count
    settings["prompts"]["per_direction"] = per_direction
    settings["experiment"] = SMALL
    return write_study(folder, settings)


def run_small(folder: Path) -> None:
    """Run the study's own experiments."""
    config = read_config(folder)
    run_study(folder, config, config.experiments, Silent())


@pytest.fixture(scope="session")
def organism_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with every experiment of one run. Read only."""
    folder = tmp_path_factory.mktemp("organism") / "study"
    make_organism_study(folder, ["all"])
    run_small(folder)
    return folder
