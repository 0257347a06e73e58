"""The dose-response figure and table say what the frame says."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from esr.errors import UserError
from esr.reporting.dose_figure import PANELS, dose_response_figure
from esr.reporting.dose_table import dose_table
from esr.reporting.figures import DARK, LIGHT, NARROW, WIDE, Theme, png


@pytest.fixture
def frame() -> pd.DataFrame:
    """The study itself (no restart), and two shares."""
    rows = []
    for share, adapter, multi, improved in ((0.0, False, 0, 0), (0.1, True, 20, 15), (0.9, True, 100, 80)):
        row = {
            "share": share,
            "adapter": adapter,
            "n_trials": 205,
            "n_unscored": 5,
            "n_degraded": 3,
            "n_directions": 40,
        }
        counts = {
            "multi_attempt_rate": (multi, 200),
            "improvement_rate": (improved, multi),
            "esr_rate": (improved, 200),
        }
        for key, (above, below) in counts.items():
            rate = above / below if below else np.nan
            row |= {key: rate, f"{key}_numerator": above, f"{key}_denominator": below}
            low, high = (max(0, rate - 0.05), min(1, rate + 0.05)) if below else (0.0, 1.0)
            row |= {f"{key}_low": low, f"{key}_high": high, f"{key}_note": ""}
        for key, value in (("mean_first_score", 30.0), ("unsteered_first_score", 90.0)):
            row |= {key: value, f"{key}_low": value - 3, f"{key}_high": value + 3}
        row |= {"unsteered_multi_attempt_rate": 0.01, "perplexity": 2.5}
        if adapter:
            row |= {"quality_difference": -1.5, "quality_difference_low": -4, "quality_difference_high": 1}
            row |= {"perplexity_ratio": 1.02, "perplexity_ratio_low": 1.01, "perplexity_ratio_high": 1.03}
        rows.append(row)
    return pd.DataFrame(rows)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def test_every_rate_is_drawn_with_its_interval_and_counts(frame: pd.DataFrame) -> None:
    figure = dose_response_figure(frame)
    assert len(figure.axes) == 3
    for axis, key in zip(figure.axes, PANELS, strict=True):
        drawn = frame[frame[f"{key}_denominator"] > 0]
        segments = [segment for lines in axis.collections for segment in lines.get_segments()]
        expected = [[[r["share"], r[f"{key}_low"]], [r["share"], r[f"{key}_high"]]] for r in drawn.to_dict("records")]
        np.testing.assert_allclose(segments, expected)
        line = axis.lines[0]
        tuned = drawn[drawn["adapter"]]
        np.testing.assert_allclose(line.get_xydata(), tuned[["share", key]])
        points = {(float(p.get_xdata()[0]), float(p.get_ydata()[0])) for p in axis.lines[1:]}
        assert points == set(zip(drawn["share"], drawn[key], strict=True))
    shown = texts(figure)
    assert {"0/200", "20/200", "100/200", "15/20", "80/100"} <= set(shown)
    assert shown.count("undefined") == 1  # the improvement rate of the study itself
    assert any("15 unscored, 9 degraded" in text for text in shown)


@pytest.mark.parametrize(("theme", "width"), [(LIGHT, WIDE), (DARK, NARROW)])
def test_it_is_drawn_in_every_form_and_leaves_no_settings(frame: pd.DataFrame, theme: Theme, width: float) -> None:
    before = dict(mpl.rcParams)
    picture = png(dose_response_figure(frame, theme=theme, width=width), 60)
    assert picture == png(dose_response_figure(frame, theme=theme, width=width), 60)
    assert dict(mpl.rcParams) == before
    png(dose_response_figure(frame.head(1), theme=theme, width=width), 60)


def test_an_empty_frame_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="at least one share"):
        dose_response_figure(frame.head(0))


def test_the_table_fits_and_says_the_same(frame: pd.DataFrame) -> None:
    out = io.StringIO()
    Console(file=out, width=100, highlight=False).print(dose_table(frame))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    said = ["before", "10 %", "90 %", "20 of 200", "15 of 20", "0 of 0", "5 unscored", "3 degraded", "40 directions"]
    said += ["45.0 to 55.0", "0.0 to 100.0", "undefined", "1.02", "1.01 to 1.03", "2.50", "\u22124.0 to +1.0"]
    for words in said:
        assert words in text, words
