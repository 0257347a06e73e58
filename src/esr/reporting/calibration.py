"""Calibration in a line: how many thresholds, how sure, and how near the target the score there is."""

from __future__ import annotations

from typing import Any

import pandas as pd

from esr.studies.calibration.pooled import LEAST_LOWER
from esr.studies.calibration.records import CalibrationSettings


def achieved(calibration: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Add ``achieved``, the mean first-attempt score of the trials at the threshold, and ``achieved_n``.

    These trials are no part of the search, so the mean is not flattered by it.
    """
    at_threshold = trials[(trials["state"] == "scored") & (trials["boost"] == trials["threshold"])]
    one = min(at_threshold["condition"].unique(), key=lambda name: (name != "incidence", name), default="")
    these = at_threshold[at_threshold["condition"] == one]
    weighted = (these["first_score"] * these["weight"]).groupby(these["direction"]).sum()
    by_direction = these.groupby("direction")["weight"]
    frame = calibration.copy()
    frame["achieved"] = frame["direction"].map(weighted / by_direction.sum()).astype(float)
    frame["achieved_n"] = frame["direction"].map(by_direction.count()).fillna(0).astype(int)
    return frame


def at_bound(calibration: pd.DataFrame, settings: CalibrationSettings) -> pd.Series:
    """``lower``, ``upper`` or ``lower and upper`` where the threshold's interval ends at a bound of the boosts that may
    be asked, beyond which the threshold may lie; else an empty text."""
    lower = max(settings.lower, LEAST_LOWER * settings.prior_mean if settings.method == "pooled" else 0.0)
    low = calibration["low"].astype(float) <= lower * (1 + 1e-4)
    high = calibration["high"].astype(float) >= settings.upper * (1 - 1e-4)
    ends = [" and ".join([*["lower"] * a, *["upper"] * b]) for a, b in zip(low, high, strict=True)]
    return pd.Series(ends, index=calibration.index, dtype=object)


def calibration_summary(
    calibration: pd.DataFrame, settings: CalibrationSettings, trials: pd.DataFrame | None = None
) -> dict[str, Any] | None:
    """Plain data; None before calibration is done. ``achieved_score``: mean over directions of the mean first score of
    their trials at the threshold; None before there are any.

    calibration, trials: of ``esr.studies.study.Study``.
    """
    if calibration.empty:
        return None
    found = calibration[calibration["status"].eq("calibrated")]
    ends = at_bound(found, settings)
    width = ((found["high"] - found["low"]) / found["threshold"]).median()
    there = float("nan")
    if trials is not None and not trials.empty:
        there = achieved(found, trials)["achieved"].mean()
    return {
        "method": settings.method,
        "directions": len(calibration),
        "calibrated": len(found),
        "median_relative_width": float(width) if len(found) else None,
        "at_a_bound": int(ends.ne("").sum()),
        "target": settings.target,
        "achieved_score": None if pd.isna(there) else float(there),
        "responses_per_direction": float(calibration["generations"].mean()),
        "stopped": {str(why): int(n) for why, n in calibration["stopped"].value_counts().items() if why},
    }


def calibration_line(summary: dict[str, Any]) -> str:
    """``Calibration (pooled): 8 of 8 directions, ...``."""
    said = [f"{summary['calibrated']} of {summary['directions']} directions"]
    if summary["calibrated"]:
        said.append(f"median 95 % interval {100 * summary['median_relative_width']:.0f} % of the threshold wide")
    if summary["at_a_bound"]:
        said.append(f"{summary['at_a_bound']} of these end at a bound, beyond which the threshold may lie")
    if summary["achieved_score"] is not None:
        said.append(f"mean first score of trials there {summary['achieved_score']:.1f} (target {summary['target']:g})")
    said.append(f"{summary['responses_per_direction']:.0f} responses per direction")
    if summary["stopped"]:
        said.append("ended: " + ", ".join(f"{n} {why}" for why, n in summary["stopped"].items()))
    return f"Calibration ({summary['method']}): {'; '.join(said)}."
