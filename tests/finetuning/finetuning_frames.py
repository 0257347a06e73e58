"""Trials made by hand, with the columns that ``esr.finetuning.sources`` reads."""

from __future__ import annotations

from typing import Any

import pandas as pd

from esr.judging.records import Attempt


def trial(condition: str, prompt: str, text: str, scores: list[float], **fields: Any) -> dict[str, Any]:
    """One trial; with several scores, each ``|`` in ``text`` begins a new attempt (and is taken out)."""
    pieces = text.split("|")
    assert len(pieces) == len(scores) or not scores
    starts = [sum(map(len, pieces[:i])) for i in range(len(pieces) + 1)]
    text = "".join(pieces)
    attempts = [
        Attempt(start, end, score, kind=None if i == 0 else "disowning")
        for i, (start, end, score) in enumerate(zip(starts, starts[1:], scores, strict=False))
    ]
    multi = len(scores) > 1
    improvement = scores[-1] - scores[0] if multi else float("nan")
    row = {
        "trial": f"{condition}/{prompt}/{text}", "condition": condition, "direction": "latent:1", "prompt_index": 0,
        "prompt": prompt, "seed": 1, "boost": 0.0 if condition == "no-steering" else 4.0, "text": text,
        "finish": "stop", "state": "scored" if scores else "unscored", "n_attempts": float(len(scores) or "nan"),
        "first_score": scores[0] if scores else float("nan"), "multi_attempt": multi,
        "improved": multi and improvement > 0, "improvement": improvement, "degraded": False, "attempts": attempts,
        "prefix_tokens": 0,
    }  # fmt: skip
    return row | fields


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows)
