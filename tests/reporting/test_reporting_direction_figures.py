import numpy as np
import pytest
from matplotlib.text import Text

from esr.errors import UserError
from esr.reporting import figures
from esr.reporting.direction_figures import calibration_quality, direction_checks


@pytest.fixture
def calibration(make_view):
    return make_view().calibration


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def bars(axis):
    return sum(patch.get_height() for patch in axis.patches)


def test_every_calibrated_direction_is_in_each_histogram_and_every_one_spent(calibration):
    figure = calibration_quality(calibration, 30)
    threshold, width, achieved, spent = figure.axes
    assert [bars(axis) for axis in (threshold, width, achieved, spent)] == [12, 12, 12, 14]
    found = calibration[calibration["status"] == "calibrated"]
    assert f"median {found['threshold'].median():.3g}" in texts(figure)
    share = ((found["high"] - found["low"]) / found["threshold"]).median()
    assert f"median {100 * share:.3g} %" in texts(figure)
    assert any(list(line.get_xdata()) == [30, 30] for line in achieved.lines)


def test_predictions_of_a_surrogate_stand_against_what_was_found(calibration):
    predicted = calibration.assign(surrogate=np.where(calibration.index < 5, calibration["threshold"] * 1.5, np.nan))
    figure = calibration_quality(predicted, 30)
    points = figure.axes[-1].lines[-1]
    assert list(points.get_ydata()) == list(calibration["threshold"][:5])
    assert list(points.get_xdata()) == list(calibration["threshold"][:5] * 1.5)
    assert len(calibration_quality(calibration.assign(surrogate=np.nan), 30).axes) == 4


def test_nothing_calibrated_is_refused(calibration):
    with pytest.raises(UserError, match=r"needs a calibrated direction.*none of 2"):
        calibration_quality(calibration[calibration["status"] != "calibrated"], 30)
    with pytest.raises(UserError, match="at least one direction"):
        direction_checks(calibration.head(0))


def test_each_direction_is_one_mark_of_its_kind(calibration):
    figure = direction_checks(calibration)
    marks = {}
    for line in figure.axes[0].lines:
        if line.get_marker() in ("o", "D", "x"):
            marks.setdefault(line.get_marker(), []).extend(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert {marker: len(points) for marker, points in marks.items()} == {"o": 11, "D": 1, "x": 2}
    assert marks["D"] == [(12.5, calibration.loc[2, "promotion"])]
    assert (-6.0, calibration.loc[0, "promotion"]) in marks["o"]  # efficacy was not tried
    assert {"promotes restart words (n = 1)", "uncalibrated, not used (n = 2)", "not\ntried"} <= set(texts(figure))
    assert "not\ntried" not in texts(direction_checks(calibration[calibration["efficacy_drop"].notna()]))


@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
def test_they_can_be_drawn_in_every_look(calibration, width):
    for theme in (figures.LIGHT, figures.DARK):
        for figure in (calibration_quality(calibration, 30, theme=theme, width=width),
                       direction_checks(calibration, theme=theme, width=width)):  # fmt: skip
            assert figures.svg(figure).startswith("<?xml")
            assert figure.get_facecolor()[:3] == pytest.approx([int(theme.background[i : i + 2], 16) / 255
                                                                for i in (1, 3, 5)])  # fmt: skip
