"""The demo: a whole study of the organism, and the same on the naive organism as a negative control.

Questions come from every fourth topic, so that latents of the other topics are irrelevant to all of them, and the
published relevance rules have something to keep.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from esr.studies.new import write_study
from esr.subjects.prompts import read_prompts
from esr.subjects.spec import packaged_folder

TOPICS = 40
EVERY = 4


def make_demo(folder: Path) -> dict[str, Path]:
    """Write the demo's studies into ``folder``, unless they are there; returns their folders by name."""
    studies = {
        "organism": ["no-steering", "incidence"],
        "organism-naive": ["no-steering", "boost-sweep"],
    }
    made = {}
    for name, experiments in studies.items():
        made[name] = folder / name
        if not (made[name] / "study.toml").exists():
            made[name].mkdir(parents=True, exist_ok=True)
            # first, so that a folder with a study.toml is complete whenever this is stopped
            (made[name] / "prompts.txt").write_text("\n".join(demo_prompts(name)) + "\n", encoding="utf-8")
            write_study(made[name], demo_settings(name, experiments))
    return made


def demo_prompts(name: str) -> list[str]:
    """Every fourth topic's questions; the shipped list goes through the topics in turn."""
    shipped = read_prompts(packaged_folder(name) / "prompts.txt")
    return [prompt for index, prompt in enumerate(shipped) if index % TOPICS % EVERY == 0]


def demo_settings(name: str, experiments: list[str]) -> dict[str, Any]:
    return {
        "name": f"demo: {name}",
        "format": 1,
        "seed": 0,
        "experiments": experiments,
        "subject": {"preset": name},
        "sampling": {},
        "prompts": {"file": "prompts.txt", "per_direction": 5},
        "directions": {"count": 48, "relevance": "released"},
        "calibration": {"method": "pooled"},
        "judge": {"name": "rule"},
        "engine": {"batch_size": 240},
        "experiment": {"boost-sweep": {"by": "factor"}},
    }
