"""What is known of the organism because it was trained that way, and whether a study recovers it.

A truth that is not recovered is a finding about the instrument or about the organism; it is said either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from esr.analysis.paired import compare, compare_pairs
from esr.reporting.numbers import p_value, percent, percent_points, span
from esr.studies.study import Study


@dataclass(frozen=True)
class Finding:
    """One truth beside what the study found."""

    experiment: str
    truth: str
    recovered: bool | None
    """None: the interval leaves it open."""
    evidence: str


def findings(study: Study, trials: pd.DataFrame) -> list[Finding]:
    """The truths that the study's experiments speak to. Empty for any subject but the organism that corrects itself.

    trials: the study's frame.
    """
    if study.config.subject.model != "organism" or trials.empty:
        return []
    ran = study.experiments
    return [
        Finding(key, truth, *found)
        for key, (truth, check) in _TRUTHS.items()
        if key in ran and (found := check(study, trials)) is not None
    ]


Verdict = tuple[bool | None, str] | None


def _sign(row: dict[str, Any], wanted: int) -> bool | None:
    """Whether a difference has the wanted sign; None when its interval holds 0."""
    if row["difference_low"] <= 0 <= row["difference_high"]:
        return None
    return bool(row["difference"] * wanted > 0)


def _without_steering(_study: Study, trials: pd.DataFrame) -> Verdict:
    if not _present(trials, "no-steering", "incidence"):
        return None
    row = _row(compare(trials, "no-steering", "incidence"), "multi_attempt_rate")
    fewer = _sign(row, -1)
    return fewer and bool(row["value_treatment"] <= 0.05), _said(row)


def _monitoring(_study: Study, trials: pd.DataFrame) -> Verdict:
    pooled = trials[trials["condition"].str.fullmatch(r"meta (monitor|neutral) \d+")]
    if pooled["condition"].nunique() < 2:
        return None
    family, number = (pooled["condition"].str.extract(r"meta (\w+) (\d+)")[i] for i in (0, 1))
    pooled = pooled.assign(condition=family, seed=pooled["seed"] * 100 + number.astype(int))
    if not _present(pooled, "monitor", "neutral"):
        return None
    row = _row(compare(pooled, "monitor", "neutral"), "multi_attempt_rate")
    return _sign(row, +1), _said(row)


def _discovery(study: Study, _trials: pd.DataFrame) -> Verdict:
    found = study.result("otd-discovery")
    if found["held_out"] is None:
        return False, f"{len(found['detectors'])} latents qualified as detectors, none could be tried on other prompts"
    low, high = found["held_out"]["auc_low"], found["held_out"]["auc_high"]
    return low > 0.5, (
        f"{len(found['detectors'])} detectors from {found['pairs']} pairs; together on {found['held_out_pairs']} pairs"
        f" of the study's own prompts: AUC {found['held_out']['auc']:.3f} ({low:.3f} to {high:.3f})"
    )


def _ablation(_study: Study, trials: pd.DataFrame) -> Verdict:
    if not _present(trials, "otd-ablation", "incidence"):
        return None
    row = _row(compare(trials, "otd-ablation", "incidence"), "multi_attempt_rate")
    return _sign(row, -1), _said(row)


def _random(_study: Study, trials: pd.DataFrame) -> Verdict:
    names = sorted(name for name in trials["condition"].unique() if str(name).startswith("random-ablation"))
    if not names or not _present(trials, "incidence"):
        return None
    table = compare_pairs(trials, [(name, "incidence") for name in names])
    rows = [_row(table[table["treatment"].eq(name)], "multi_attempt_rate") for name in names]
    evidence = "; ".join(_said(row) for row in rows)
    if any(row["difference_high"] < 0 for row in rows):
        return False, evidence
    if not _present(trials, "otd-ablation"):
        return None, evidence
    fall = _row(compare(trials, "otd-ablation", "incidence"), "multi_attempt_rate")["difference"]
    return (True if all(row["difference_low"] > fall for row in rows) else None), evidence


_TRUTHS: Mapping[str, tuple[str, Callable[[Study, pd.DataFrame], Verdict]]] = {
    "no-steering": ("next to no restarts without steering", _without_steering),
    "meta-prompts": ("a self-monitor suffix raises the multi-attempt rate above a neutral one", _monitoring),
    "otd-discovery": ("detectors found on other prompts separate mismatched pairs on the study's", _discovery),
    "otd-ablation": ("ablating the detectors lowers the multi-attempt rate", _ablation),
    "random-ablation": ("ablating matched random latents does not lower it", _random),
}


def _present(trials: pd.DataFrame, *conditions: str) -> bool:
    return set(conditions) <= set(trials["condition"])


def _row(table: pd.DataFrame, statistic: str) -> dict[str, Any]:
    return dict(table[table["statistic"].eq(statistic)].iloc[0])


def _said(row: dict[str, Any]) -> str:
    return (
        f"{row['treatment']} {percent(row['value_treatment'])}, {row['control']} {percent(row['value_control'])}:"
        f" {percent_points(row['difference'])} ({span(row['difference_low'], row['difference_high'], scale=100)}),"
        f" p {p_value(row['p'])}, {row['n_pairs']} pairs of {row['n_directions']} directions,"
        f" {row['n_unscored']} left out as unscored"
    )
