"""Sentences beside the rates, on hand-made trials."""

from __future__ import annotations

import pandas as pd

from esr.analysis.notes import implicit_notes, screen_note


def frame() -> pd.DataFrame:
    rows = [
        # screened, multi_attempt, segments
        (True, True, [10.0, 20.0, 90.0]),
        (True, False, [10.0, 30.0, 80.0]),
        (False, True, []),
        (False, False, [50.0, 50.0, 40.0]),
        (False, False, []),
    ]
    made = pd.DataFrame(rows, columns=["screened", "multi_attempt", "segments"])
    return made.assign(state="scored", condition="incidence", direction=["a", "a", "b", "b", "b"])


def test_screen_and_judge_are_crossed() -> None:
    assert screen_note(frame()) == (
        "Restart screen beside the judge, 5 scored responses: both see a restart in 1, the screen alone in 1,"
        " the judge alone in 1."
    )


def test_implicit_recovery_leaves_announced_restarts_out() -> None:
    (note,) = implicit_notes(frame())
    assert "mean score of the thirds 30, 40, 60" in note
    assert "in 1 of 2 responses of 2 directions" in note
    assert implicit_notes(frame().assign(segments=[[]] * 5)) == []
