"""A small study of a tiny random model that can be fine-tuned in seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from study_folders import make_study, settings

RESTARTS = "wait , no .\nno , not right , start over .\n"
CALIBRATION = {"target": 18.0, "rounds": 2, "repeats": 2, "upper": 300.0, "prior_mean": 60.0, "prior_sd": 40.0}
LEXICON = {"topics": {"first": ["bread", "chair", "window", "make", "bake", "build", "clean", "soup", "letter", "story",
                                "song", "wall", "door", "water", "fire", "stone", "tree", "river", "cloud", "bird"],
                      "second": ["cat", "dog", "horse", "fish", "lamp", "clock", "paper", "glass", "cut", "mix", "heat",
                                 "cool", "wash", "dry", "hold", "turn", "push", "pull", "red", "blue"]}}  # fmt: skip
TUNING: dict[str, Any] = {
    "shares": (0, 80),
    "examples": 10,
    "restarts": "restarts.txt",
    "ordinary_at_least": 0,
    "off_topic_at_most": 100,
    "held_out": 0.34,
    "training": {"rank": 2, "alpha": 4, "epochs": 2, "batch": 4, "learning_rate": 1e-4},
}


def new_study(folder: Path, model: Path, sae: Path, **directions: Any) -> Path:
    """A study of a few directions, scored by a lexicon; nothing has run."""
    folder.mkdir(parents=True)
    (folder / "lexicon.json").write_text(json.dumps(LEXICON))
    (folder / "restarts.txt").write_text(RESTARTS)
    values = settings(
        model, sae, subject={"lexicon": str(folder / "lexicon.json")}, directions={"count": 3} | directions,
        calibration=CALIBRATION, prompts={"per_direction": 3}, sampling={"max_new_tokens": 12},
    )  # fmt: skip
    make_study(folder, values)
    return folder
