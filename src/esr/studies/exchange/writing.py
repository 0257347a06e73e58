"""A study as result files of the reference implementation (arXiv 2602.06941): one JSON file per condition.

A file holds ``experiment_config`` (settings) and ``results_by_feature``: one entry per direction with
``feature_index_in_sae``, ``feature_label``, ``threshold``, ``error`` and ``trials``. A trial has ``prompt``, ``seed``,
``response``, ``threshold`` (the boost it was steered with), ``error`` and ``score``: either ``attempts``, a list of
``attempt_text`` and ``score``, or ``error``.

What that form cannot hold, and where it goes:

- An attempt that began without explicit restart language. There, more than one attempt *is* multi-attempt, so of a
  response without an explicit restart only the first attempt is written.
- Where attempts begin and of what kind they are, sampling weights, scores of thirds, tokens of the response, the names
  of condition and direction. They stand in blocks named ``esr``, which other readers pass over. Read back with them,
  trials are what they were. Without them every rate and mean is the same, unless only a sample was judged.
- How a condition asked, steered and clamped stands in neither: keep the study. A vector's index is its position among
  the study's directions.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from esr.errors import UserError
from esr.judging.records import Attempt

if TYPE_CHECKING:
    from esr.studies.study import Study

_OUTSIDE_THE_BLOCK = {  # the reference's own fields hold them, or they follow from the attempts
    "prompt", "seed", "text", "label", "state", "n_attempts", "explicit_restarts", "first_score", "last_score",
    "improvement", "multi_attempt", "improved",
}  # fmt: skip


def write_reference(study: Study, folder: str | Path) -> list[Path]:
    """Write the study's judged trials, one file per condition, into ``folder``, which is made if it is not there.

    Returns the files; those of the same name are replaced. A direction without trials in a condition, for example
    because it has no threshold, is an entry with an ``error``. Raises UserError when no trial has been judged, or the
    folder cannot be written.
    """
    folder = Path(folder).expanduser()
    trials, calibration = study.trials, study.calibration
    if trials.empty:
        raise UserError(
            "an export needs judged trials", f"none in {study.folder}", "Run the study first: esr run STUDY"
        )
    paths: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for condition, part in trials.groupby("condition", sort=True):
            path = folder / f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', str(condition))}.json"
            if path in paths:
                path = path.with_name(f"{path.stem}-{len(paths)}.json")
            text = json.dumps(_document(study, calibration, part), indent=1, allow_nan=False)
            partial = path.with_name(path.name + ".partial")
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
            paths.append(path)
    except OSError as error:
        raise UserError("the folder of an export can be written", f"{error.strerror}: {folder}") from None
    return paths


def _document(study: Study, calibration: pd.DataFrame, trials: pd.DataFrame) -> dict[str, Any]:
    """One condition's trials."""
    rows: dict[str, list[dict[Any, Any]]] = {}
    for trial in trials.to_dict("records"):
        rows.setdefault(trial["direction"], []).append(trial)
    features = []
    for position, direction in enumerate(calibration.to_dict("records")):
        kind, _, name = str(direction["direction"]).partition(":")
        index = int(name) if kind == "latent" else position
        found = rows.get(direction["direction"], [])
        features.append(
            {
                "feature_index_in_sae": index,
                "feature_label": direction["label"],
                "threshold": _plain(direction["threshold"]),
                "trials": [_trial(row, index) for row in found],
                "error": None if found else direction["reason"] or "no trial of it was judged",
            }
        )
    return {
        "experiment_config": _config(study, steered=bool((trials["boost"] != 0).any())),
        "results_by_feature": features,
        "esr": {
            "version": version("esr"),
            "study": study.config.name,
            "condition": str(trials["condition"].iloc[0]),
            "judge": study.judge_key,
            "settings": study.config.locked(),
        },
    }


def _config(study: Study, steered: bool) -> dict[str, Any]:
    """Our settings under the reference's names, where they mean the same."""
    config, calibration = study.config, study.config.calibration
    return {
        "prompts_file": config.prompts.file,
        "model_name": config.subject.model,
        "labels_file": config.subject.labels,
        "judge_model_name": config.judge.name,
        "disable_steering": not steered,
        "target_score_normalized": calibration.target / 100,
        "threshold_n_trials": calibration.rounds,
        "threshold_samples_per_trial": calibration.repeats,
        "per_prompt_calibration": False,
        "threshold_lower_bound": calibration.lower,
        "threshold_upper_bound": calibration.upper,
        "threshold_prior_mean": calibration.prior_mean,
        "threshold_prior_std": calibration.prior_sd,
        "max_completion_tokens": config.sampling.max_new_tokens,
        "n_trials_per_feature": config.prompts.per_direction,
        "n_features": config.directions.count,
    }


def _trial(row: dict[Any, Any], index: int) -> dict[str, Any]:
    attempts: list[Attempt] = row["attempts"]
    error = None if row["state"] == "scored" else row["reason"]
    if error is not None:
        score: dict[str, Any] = {"error": error}
    elif row["multi_attempt"]:
        score = {"attempts": [_attempt(row["text"][a.start : a.end], a.score) for a in attempts]}
    else:
        score = {"attempts": [_attempt(row["text"], attempts[0].score)]}
    block = {name: _plain(value) for name, value in row.items() if name not in _OUTSIDE_THE_BLOCK}
    return {
        "prompt": row["prompt"],
        "feature_index_in_sae": index,
        "feature_label": row["label"],
        "threshold": _plain(row["boost"]),
        "seed": int(row["seed"]),
        "response": row["text"],
        "score": score,
        "error": error,
        "esr": block | {"attempts": [asdict(a) for a in attempts]},
    }


def _attempt(text: str, score: float) -> dict[str, Any]:
    return {"attempt_text": text, "score": _plain(score)}


def _plain(value: Any) -> Any:
    """A cell of a frame as JSON has it; NaN becomes null."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
