"""A maker of small frames of trials with known contents."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest

MakeTrials = Callable[..., pd.DataFrame]


@pytest.fixture
def make_trials() -> MakeTrials:
    """Rows from dicts: ``scores`` lists the attempts' scores (several: an explicit restart; None: unscored)."""

    def make(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
        made = []
        for i, given in enumerate(rows):
            row = {"condition": "steered", "direction": "latent:1", "prompt_index": 0, "seed": i} | given
            scores = row.pop("scores")
            scored, multi = scores is not None, scores is not None and len(scores) > 1
            row |= {
                "trial": f"{row['condition']}|{row['direction']}|{row['prompt_index']}|{row['seed']}",
                "state": "scored" if scored else "unscored",
                "reason": "" if scored else row.get("reason", "no attempt"),
                "n_attempts": row.get("n_attempts", len(scores)) if scored else np.nan,
                "first_score": scores[0] if scored else np.nan,
                "last_score": scores[-1] if scored else np.nan,
                "improvement": scores[-1] - scores[0] if multi else np.nan,
                "multi_attempt": multi,
                "improved": multi and scores[-1] > scores[0],
                "degraded": row.get("degraded", False),
                "promoted": row.get("promoted", False),
            }
            made.append(row)
        return pd.DataFrame(made)

    return make


@pytest.fixture
def random_study(make_trials: MakeTrials) -> Callable[..., pd.DataFrame]:
    """Two conditions over directions x prompts: 'steered' restarts often, 'plain' seldom."""

    def study(directions: int = 24, prompts: int = 4, seed: int = 0) -> pd.DataFrame:
        generator = np.random.default_rng(seed)
        rows = []
        for condition, restart in (("steered", 0.5), ("plain", 0.1)):
            for direction in range(directions):
                for prompt in range(prompts):
                    scores: list[float] | None = [generator.uniform(0, 100)]
                    if generator.random() < restart:
                        scores.append(generator.uniform(0, 100))
                    rows.append(
                        {
                            "condition": condition,
                            "direction": f"latent:{direction}",
                            "prompt_index": prompt,
                            "seed": 100 * direction + prompt,
                            "scores": None if generator.random() < 0.05 else scores,
                            "degraded": bool(generator.random() < 0.1),
                            "promoted": direction % 7 == 3,
                        }
                    )
        return make_trials(rows)

    return study
