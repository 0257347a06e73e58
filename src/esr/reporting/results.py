"""What experiments found besides rates, as sentences and tables of words. Labels in them are untrusted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from esr.analysis.activation_comparisons import key_control_notes
from esr.analysis.activations import REGIONS, SPANS, WHOLE
from esr.reporting.numbers import (
    UNDEFINED,
    p_value,
    percent,
    percent_points,
    points,
    significant,
    span,
    times,
    times_span,
)
from esr.reporting.untrusted import printable
from esr.reporting.view import ActivationTables, ExperimentView

_BASELINE = "Baseline: the mean over all tokens of the unsteered responses."
_QUALITY = {"latents", "density_difference", "magnitude_difference", "mean_distance", "max_distance", "shared"}


@dataclass(frozen=True)
class ResultTable:
    """One table."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """As many cells as the header; the first is a name. A line feed parts a value from what stands below it."""
    note: str = ""


def result_findings(experiment: ExperimentView) -> list[str]:
    """What an experiment that reads trials found, in sentences; none where it is not of a form known here."""
    result = experiment.result
    if is_discovery(experiment):
        return list(_discovered(result))
    if _are_matches(result):
        return [_match_quality(result)]
    if experiment.activations is not None:
        return key_control_notes(experiment.activations.comparisons)
    return []


def result_tables(experiment: ExperimentView) -> list[ResultTable]:
    """The tables of an experiment's result; none where it has none, or one of a form not known here."""
    if is_discovery(experiment):
        return [_detectors(experiment.result["table"])]
    if _are_matches(experiment.result):
        return [_matches(experiment.result)]
    if experiment.activations is not None:
        return list(_activations(experiment.activations, experiment.result["groups"]))
    if experiment.dose is not None:
        return [_dose(experiment.dose)]
    return []


def is_discovery(experiment: ExperimentView) -> bool:
    """Whether its result is a search for detectors, as ``otd-discovery`` stores it."""
    result = experiment.result
    return experiment.figure == "detectors" and isinstance(result, Mapping) and {"detectors", "table"} <= result.keys()


def _are_matches(result: Any) -> bool:
    """Whether it is a list of ``esr.directions.matching.MatchedSet`` as plain data."""
    if not isinstance(result, list) or not result:
        return False
    return all(isinstance(one, Mapping) and one.keys() >= _QUALITY for one in result)


def _discovered(result: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{len(result['detectors'])} latents chosen of {result['alive']:,} alive, from {result['pairs']:,} matched and"
        f" as many mismatched pairs over {result['prompts']} prompts. The best of many look better here than they are."
    )
    held_out = result["held_out"]
    if held_out:
        yield (
            f"The chosen ones together, on {result['held_out_pairs']:,} pairs of the study's own prompts: AUC"
            f" {held_out['auc']:.3f} ({_interval(held_out)})."
        )


def _detectors(rows: Sequence[Mapping[str, Any]]) -> ResultTable:
    return ResultTable(
        f"Table of {len(rows)} latents",
        (
            "Latent", "Chosen", "AUC", "AUC, study's prompts", "Cohen's d", "Active on mismatched pairs", "Density",
        ),
        tuple(
            (
                f"{printable(row['label']) or 'no label'}\nlatent {row['latent']}",
                "yes" if row["chosen"] else "no",
                f"{row['auc']:.3f}\n{_interval(row)}",
                UNDEFINED if _nan(row["held_out_auc"]) else f"{row['held_out_auc']:.3f}",
                UNDEFINED if _nan(row["d"]) else _minus(f"{row['d']:.2f}"),
                f"{percent(row['rate_mismatched'])}\nmatched {percent(row['rate_matched'])}",
                f"{percent(row['density'])}\nmean {significant(row['mean_active'])}",
            )
            for row in rows
        ),
        "In the order of the search. Density: share of the matched pairs' tokens at which the latent is active; below"
        " it the mean activation there.",
    )  # fmt: skip


def _match_quality(sets: Sequence[Mapping[str, Any]]) -> str:
    ends = {
        name: f"{_hundredths(min(values))} to {_hundredths(max(values))}"
        for name in ("density_difference", "magnitude_difference")
        for values in [[one[name] for one in sets]]
    }
    return (
        f"{len(sets)} random sets of {len(sets[0]['latents'])} latents, less the detectors: log density"
        f" {ends['density_difference']} sd, log activation when active {ends['magnitude_difference']} sd."
    )


def _matches(sets: Sequence[Mapping[str, Any]]) -> ResultTable:
    return ResultTable(
        f"How well the {len(sets)} random sets match the detectors",
        ("Set", "Density", "Activation when active", "Mean distance", "Largest distance", "Latents in another set"),
        tuple(
            (
                f"{k}\nlatents {', '.join(map(str, one['latents']))}",
                *(_hundredths(one[name]) for name in ("density_difference", "magnitude_difference")),
                *(f"{one[name]:.2f}" for name in ("mean_distance", "max_distance")),
                str(one["shared"]),
            )
            for k, one in enumerate(sets, 1)
        ),
        "Set minus detectors, and distances, in standard deviations of the logarithms over the living latents.",
    )


def _activations(tables: ActivationTables, groups: Mapping[str, Sequence[int]]) -> Iterator[ResultTable]:
    compared = tables.comparisons[tables.comparisons["unit"].eq("group")]
    yield ResultTable(
        "Groups of latents compared: within episodes, and with steered text that never restarts",
        ("Group", "Means", "Difference", "Ratio", "Cohen's d", "Cliff's delta", "p, sign flip", "Pairs"),
        tuple(
            (
                f"{row['name']}\n{row['comparison']}, {row['region']}",
                f"{significant(row['mean_first'])}\nand {significant(row['mean_second'])}",
                f"{_signed(row['difference'])}\n{_span(row, 'difference')}",
                f"{times(row['ratio'])}\n{times_span(row['ratio_low'], row['ratio_high'])}",
                f"{_signed(row['cohen_d'])}\n{_span(row, 'cohen_d')}",
                f"{_signed(row['cliffs_delta'])}\n{_span(row, 'cliffs_delta')}",
                f"{p_value(row['p_flip'])}\nHolm {p_value(row['p_flip_holm'])}",
                f"{row['n_pairs']}\n{row['n_directions']} directions",
            )
            for row in compared.to_dict("records")
        ),
        "Holm: over the groups of one comparison and region. Effect sizes: episodes against single controls.",
    )
    regions = tables.regions
    yield ResultTable(
        "Mean activation of the groups in each region",
        ("Group", "Mean", "Over baseline", "Responses", "Directions", "Without such a region"),
        tuple(
            (
                f"{row['name']}\n{row['kind']}, {row['region']}",
                f"{significant(row['mean'])}\n"
                + ("" if _nan(row["low"]) else f"{significant(row['low'])} to {significant(row['high'])}"),
                f"{_over_baseline(row)}\n{times_span(row['ratio_low'], row['ratio_high'])}",
                str(row["n"]),
                str(row["n_directions"]),
                str(row["n_empty"]),
            )
            for row in regions[regions["unit"].eq("group")].to_dict("records")
        ),
        _BASELINE,
    )
    found = {
        (row["name"], row["kind"], row["region"]): row
        for row in regions[regions["unit"].eq("latent")].to_dict("records")
    }
    columns = [("episode", region) for region in SPANS] + [("no-recovery", REGIONS[0]), ("unsteered", WHOLE)]
    yield ResultTable(
        "Mean activation of each latent",
        ("Latent", *(f"{kind}, {region}" for kind, region in columns)),
        tuple(
            (
                f"{name}\n{', '.join(group for group, latents in groups.items() if int(name) in latents)}",
                *(f"{significant(row['mean'])}\n{_over_baseline(row)}" for row in (found[name, *c] for c in columns)),
            )
            for name in dict.fromkeys(name for name, _, _ in found)
        ),
        f"Below each mean, how many times the baseline it is. {_BASELINE}",
    )


def _over_baseline(row: Mapping[Any, Any]) -> str:
    return str(row["note"]) if _nan(row["ratio"]) and row["note"] else times(row["ratio"])


def _dose(frame: pd.DataFrame) -> ResultTable:
    return ResultTable(
        "Dose and response",
        (
            "Share of self-correction", "ESR", "Multi-attempt", "Improved of those", "First score",
            "Multi-attempt − before", "Unsteered score", "Perplexity", "Counts",
        ),
        tuple(
            (
                f"{100 * row['share']:.0f} %" if row["adapter"] else "before",
                *(_rate(row, key) for key in ("esr_rate", "multi_attempt_rate", "improvement_rate")),
                f"{points(row['mean_first_score'])}\n{span(row['mean_first_score_low'], row['mean_first_score_high'])}",
                _dose_difference(row),
                f"{points(row['unsteered_first_score'])}\n"
                + span(row["unsteered_first_score_low"], row["unsteered_first_score_high"]),
                f"{row['perplexity']:.2f}" + (f"\n{times(row['perplexity_ratio'])}" if row["adapter"] else ""),
                f"{row['n_trials']} trials\n{row['n_directions']} directions, {row['n_unscored']} unscored,"
                f" {row['n_degraded']} degraded",
            )
            for row in frame.to_dict("records")
        ),
        "Incidence of each adapter at its own thresholds. Perplexity of ordinary answers to held-out prompts, and its"
        " ratio to before. p: Holm over the shares.",
    )  # fmt: skip


def _rate(row: Mapping[Any, Any], key: str) -> str:
    between = span(row[f"{key}_low"], row[f"{key}_high"], scale=100)
    counted = f"{row[f'{key}_numerator']} of {row[f'{key}_denominator']}"
    return f"{percent(row[key])}\n{between}{', ' if between else ''}{counted}"


def _dose_difference(row: Mapping[Any, Any]) -> str:
    if not row["adapter"]:
        return ""
    key = "multi_attempt_difference"
    between = span(row[f"{key}_low"], row[f"{key}_high"], scale=100, signed=True)
    return f"{percent_points(row[key])}\n{between}, p {p_value(row[f'{key}_p_holm'])}"


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["auc_low"], row["auc_high"]
    return "no interval" if _nan(low) or _nan(high) else f"{low:.3f} to {high:.3f}"


def _span(row: Mapping[Any, Any], key: str) -> str:
    ends = row[f"{key}_low"], row[f"{key}_high"]
    return "" if any(_nan(end) for end in ends) else " to ".join(_signed(end) for end in ends)


def _signed(value: float) -> str:
    return UNDEFINED if _nan(value) else _minus(f"{value:+.3g}")


def _hundredths(value: float) -> str:
    return _minus(f"{round(value, 2) + 0.0:+.2f}")  # + 0.0, or what rounds to 0 from below would be -0


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _nan(value: float | None) -> bool:
    return value is None or math.isnan(value)
