"""The line on calibration, and which intervals end at a bound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from esr.reporting.calibration import at_bound, calibration_line, calibration_summary
from esr.studies.calibration.pooled import Pooled
from esr.studies.calibration.records import CalibrationSettings

SETTINGS = CalibrationSettings(lower=0.0, upper=60.0, prior_mean=20.0, prior_sd=8.0)


def calibrated(settings: CalibrationSettings, falls: list[float]) -> pd.DataFrame:
    """What the search finds where each direction's score falls from 90 to 0 at one boost."""
    search = Pooled(settings, len(falls), 90.0)
    while probes := search.ask():
        for probe in probes:
            search.tell(probe, [90.0 if probe.boost < falls[probe.direction] else 0.0] * probe.repeats)
    return pd.DataFrame([dataclasses.asdict(one) for one in search.results()])


def test_ends_of_intervals_at_the_bounds_are_found() -> None:
    found = calibrated(SETTINGS, [15.0, 25.0, 1e9, 1e-9])
    assert at_bound(found, SETTINGS).tolist() == ["", "", "upper", "lower"]


def test_the_line() -> None:
    frame = pd.DataFrame(
        {
            "threshold": [10.0, 20.0, np.nan],
            "low": [8.0, 10.0, 1.0],
            "high": [12.0, 60.0, 60.0],
            "generations": [30, 31, 32],
            "status": ["calibrated", "calibrated", "uncalibrated"],
            "stopped": ["narrow", "rounds spent", "out of reach"],
        }
    )
    summary = calibration_summary(frame, SETTINGS)
    assert summary is not None
    assert summary["median_relative_width"] == pytest.approx((0.4 + 2.5) / 2)
    assert calibration_line(summary) == (
        "Calibration (pooled): 2 of 3 directions; median 95 % interval 145 % of the threshold wide; 1 of these end at a"
        " bound, beyond which the threshold may lie; 31 responses per direction; ended: 1 narrow, 1 rounds spent, 1 out"
        " of reach."
    )
    assert calibration_summary(frame.head(0), SETTINGS) is None
