"""Sentences beside the rates: how the restart screen and the judge disagree, and recovery without any announcement."""

from __future__ import annotations

import numpy as np
import pandas as pd


def screen_note(trials: pd.DataFrame) -> str:
    """How often the phrase screen and the judge see a restart in the same responses (scored ones, unweighted)."""
    scored = trials[trials["state"] == "scored"]
    screened, judged = scored["screened"].astype(bool), scored["multi_attempt"].astype(bool)
    both, screen_only, judge_only = (int(x.sum()) for x in (screened & judged, screened & ~judged, ~screened & judged))
    return (
        f"Restart screen beside the judge, {len(scored)} scored responses: both see a restart in {both},"
        f" the screen alone in {screen_only}, the judge alone in {judge_only}."
    )


def implicit_notes(trials: pd.DataFrame) -> list[str]:
    """Per condition, the mean score of the thirds of responses without an explicit restart: a rise from the middle or
    the first third to the last is recovery that was not announced, and no part of ESR. Empty without segment scores.
    """
    scored = trials[(trials["state"] == "scored") & ~trials["multi_attempt"].astype(bool)]
    scored = scored[scored["segments"].map(len) == 3]
    notes = []
    for name, part in scored.groupby("condition", sort=True):
        thirds = np.array(part["segments"].tolist(), float)
        first, middle, last = thirds.mean(0)
        better = int((thirds[:, 2] > thirds[:, 0]).sum())
        notes.append(
            f"{name}, without an announced restart: mean score of the thirds {first:.0f}, {middle:.0f}, {last:.0f};"
            f" the last third scores above the first in {better} of {len(part)} responses"
            f" of {part['direction'].nunique()} directions."
        )
    return notes
