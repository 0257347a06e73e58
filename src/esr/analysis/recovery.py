"""How responses came back on topic: announced, with a bare turn, or without any mark. The three kinds are kept apart
always (METHOD section 6); only the first is ESR in the paper's sense.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from esr.analysis.metrics import Clustering
from esr.analysis.trials import checked
from esr.analysis.uncertainty import DRAWS, LEVEL, UNDEFINED, Floats, ratio_interval

KINDS = {
    "explicit": "announced a new start, and the last score is above the first: ESR",
    "pivot": "began anew without announcing it (pivot or pretext), never announced, and the last score is above the"
    " first",
    "gradual": "no new attempt, and the last third scores above the first third; only where thirds were judged",
}
"""Kind -> what counts as one."""


def recoveries(trials: pd.DataFrame, *, seed: int = 0, draws: int = DRAWS, level: float = LEVEL) -> pd.DataFrame:
    """One row per condition, sorted by name, and kind of ``KINDS``, in that order.

    Columns: ``condition``, ``kind``; ``events`` (responses that came back that way), ``counted`` (responses that could
    have: the scored ones; for gradual those with scores of thirds), both weighted where a sample was judged; ``rate``
    (events / counted, NaN without any), ``low``, ``high`` (clustered by direction, as ``esr.analysis.metrics``) and
    ``method``; ``directions`` of those counted; ``began`` (announced or bare new starts, improved or not; NaN for
    gradual). ``explicit`` is the ESR rate. Raises UserError as ``checked`` does.
    """
    trials = checked(trials, ["n_attempts", "last_score", "segments"])
    rows = []
    for name, part in trials.groupby("condition", sort=True):
        scored = part["state"].eq("scored").to_numpy(bool)
        weight = part["weight"].to_numpy(float) if "weight" in part else np.ones(len(part))
        multi = part["multi_attempt"].to_numpy(bool)
        began = scored & ~multi & part["n_attempts"].astype(float).gt(1).to_numpy()
        better = part["last_score"].astype(float).gt(part["first_score"].astype(float)).to_numpy()
        judged = scored & part["segments"].map(len).eq(3).to_numpy()
        rising = np.array([len(s) == 3 and s[2] > s[0] for s in part["segments"]], bool)
        clustering = Clustering([part], "direction")
        directions = part["direction"].to_numpy()
        for kind, events, counted, starts in (
            ("explicit", part["improved"].to_numpy(bool), scored, float(weight[multi].sum())),
            ("pivot", began & better, scored, float(weight[began].sum())),
            ("gradual", judged & ~multi & ~began & rising, judged, math.nan),
        ):
            above, below = clustering.sums(weight * events), clustering.sums(weight * counted)
            row = {"condition": str(name), "kind": kind, "began": starts}
            row |= {"directions": len(set(directions[counted]))}
            rows.append(row | _rate(above, below, seed=seed, draws=draws, level=level))
    return pd.DataFrame(rows)


def _rate(above: Floats, below: Floats, *, seed: int, draws: int, level: float) -> dict[str, object]:
    events, counted = float(above.sum()), float(below.sum())
    row: dict[str, object] = {"events": round(events), "counted": round(counted)}
    if not counted:
        return row | {"rate": math.nan, "low": math.nan, "high": math.nan, "method": UNDEFINED}
    interval = ratio_interval(above, below, seed=seed, draws=draws, level=level)
    return row | {"rate": events / counted, "low": interval.low, "high": interval.high, "method": interval.method}
