"""Does a result hang on one direction? Every statistic again without each of the directions in turn.

A rate that one direction carries is a finding about that direction. ``table["without"].min()`` and ``.max()`` are the
range of values that leaving out any one direction can give; the first row is the most influential direction.
"""

from __future__ import annotations

import pandas as pd

from esr.analysis.metrics import Clustering, statistic_named
from esr.analysis.paired import match
from esr.analysis.trials import checked
from esr.analysis.uncertainty import Floats, divide
from esr.errors import UserError


def influence(trials: pd.DataFrame, statistic: str, condition: str) -> pd.DataFrame:
    """One row per direction that counts in the statistic of a condition, the largest |change| first.

    Columns: ``direction``; ``n``, its share of the denominator; ``value``, of all directions; ``without``, of all but
    this one (NaN when nothing is left); ``change``, without - value. Raises UserError for an unknown statistic or a
    condition without trials, and as ``checked`` does.
    """
    chosen = statistic_named(statistic)
    trials = checked(trials, [])
    part = trials[trials["condition"].eq(condition)]
    if part.empty:
        raise UserError("the condition has trials", f"none of {condition!r}")
    clustering = Clustering([part], "direction")
    above, below = (sums[:, 0] for sums in clustering.terms([chosen]))
    return _table(clustering, {"n": below}, "value", *_with_and_without(above, below))


def influence_on_difference(
    trials: pd.DataFrame, statistic: str, treatment: str, control: str, *, paired: bool | None = None
) -> pd.DataFrame:
    """The same for treatment - control, over the trials that ``compare`` takes; a direction leaves both arms.

    Columns: ``direction``, ``n_treatment``, ``n_control``, ``difference``, ``without``, ``change``. Raises UserError as
    ``compare`` does, and for an unknown statistic.
    """
    chosen = statistic_named(statistic)
    arms = match(checked(trials, []), treatment, control, paired)
    clustering = Clustering(arms.frames, "direction")
    sums = [part[:, 0] for arm in (0, 1) for part in clustering.terms([chosen], arm)]
    (first, first_without), (second, second_without) = _with_and_without(*sums[:2]), _with_and_without(*sums[2:])
    counts = {"n_treatment": sums[1], "n_control": sums[3]}
    return _table(clustering, counts, "difference", first - second, first_without - second_without)


def _with_and_without(above: Floats, below: Floats) -> tuple[float, Floats]:
    """The ratio of sums over all directions, and over all but each [directions]."""
    total = above.sum(keepdims=True), below.sum(keepdims=True)
    return float(divide(*total)[0]), divide(total[0] - above, total[1] - below)


def _table(clustering: Clustering, counts: dict[str, Floats], name: str, value: float, without: Floats) -> pd.DataFrame:
    columns = {"direction": clustering.names[0], **counts, name: value, "without": without, "change": without - value}
    table = pd.DataFrame(columns)
    table = table[table[list(counts)].gt(0).any(axis=1)]
    return table.sort_values("change", key=lambda change: -change.abs(), kind="stable", ignore_index=True)
