"""What experiments other than trials store or compute, made up."""

import functools
from typing import Any

import numpy as np
import pandas as pd
from activation_readings import activations, random_readings

from esr.analysis.activation_comparisons import compare_activations
from esr.analysis.activation_courses import normalised_course, token_course
from esr.analysis.activation_regions import region_table
from esr.analysis.metrics import STATISTICS
from esr.judging.agreement import Agreement, pairwise_agreement
from esr.judging.records import Attempt, Scored, Unscored
from esr.reporting.view import ActivationTables

GROUPS = {"groups": {"detectors": [5, 7], "backtracking": [11]}}
MATCHES = [
    {
        "latents": [1, 2], "density_difference": -0.25, "magnitude_difference": 0.5, "mean_distance": 0.7,
        "max_distance": 1.1, "shared": 0,
    },
    {
        "latents": [3, 4], "density_difference": 0.125, "magnitude_difference": -0.06, "mean_distance": 0.4,
        "max_distance": 0.9, "shared": 1,
    },
]  # fmt: skip


def discovery(words: tuple[str, ...], latents: int = 3) -> dict[str, Any]:
    """What otd-discovery stores, with labels of these words."""
    row = {
        "chosen": True, "d": 1.234, "rate_matched": 0.125, "rate_mismatched": 0.875, "mean_matched": 0.1,
        "mean_mismatched": 0.9, "auc_low": 0.612, "auc_high": 0.987, "auc_method": "", "density": 0.015,
        "mean_active": 2.5, "held_out_auc": 0.712,
    }  # fmt: skip
    labels = [words[k % len(words)][:3000] for k in range(latents)]
    table = [row | {"latent": 40 + k, "label": label, "auc": 0.9 - k / 100} for k, label in enumerate(labels)]
    table[-1] |= {"chosen": False, "d": float("nan"), "held_out_auc": None}
    return {
        "detectors": [40, 41], "table": table, "alive": 1234, "prompts": 60, "pairs": 240, "held_out_pairs": 40,
        "held_out": {"auc": 0.801, "auc_low": 0.7, "auc_high": 0.9, "auc_method": ""},
    }  # fmt: skip


@functools.cache
def activation_tables() -> ActivationTables:
    """Tables of made-up readings."""
    read = activations(random_readings())
    courses = (course(read, draws=100) for course in (token_course, normalised_course))
    return ActivationTables(region_table(read, draws=100), compare_activations(read, draws=100), *courses)


def dose_frame() -> pd.DataFrame:
    """A dose response of two rows."""
    row: dict[str, Any] = {"n_trials": 50, "n_directions": 10, "n_unscored": 1, "n_degraded": 2}
    for statistic in STATISTICS:
        row |= {statistic.key + end: value for end, value in (("", 0.2), ("_low", 0.1), ("_high", 0.3))}
        row |= {f"{statistic.key}_numerator": 10, f"{statistic.key}_denominator": 50}
    row |= {f"multi_attempt_difference{end}": 0.07 for end in ("", "_low", "_high", "_p", "_p_holm")}
    row |= {f"unsteered_first_score{end}": 97.0 for end in ("", "_low", "_high")}
    row |= {"perplexity": 3.25, "perplexity_ratio": 1.09}
    return pd.DataFrame([row | {"share": 0.0, "adapter": False}, row | {"share": 0.5, "adapter": True}])


def judges_agreement(*names: str) -> tuple[Agreement, ...]:
    """Of judges of these names over 60 responses of 12 directions; the last one agrees with nobody."""
    generator = np.random.default_rng(3)
    truth = generator.random(60) < 0.4
    rows: list[tuple[Any, ...]] = []
    for k, name in enumerate(names):
        seen = truth if k < len(names) - 1 else generator.random(60) < 0.5
        for i, multi in enumerate(seen):
            scores = generator.integers(0, 101, 2)
            attempts = [Attempt(0, 10, float(scores[0]))]
            if multi:
                attempts.append(Attempt(10 + k, 30, float(scores[1]), kind="redo"))
            judgement = Unscored("timeout") if generator.random() < 0.05 else Scored(tuple(attempts))
            rows.append((f"r{i}", name, judgement, f"d{i // 5}"))
    frame = pd.DataFrame(
        {
            name: pd.Series([row[i] for row in rows], dtype=object)
            for i, name in enumerate(("response", "judge", "judgement", "direction"))
        }
    )
    return tuple(pairwise_agreement(frame, seed=0, resamples=50))
