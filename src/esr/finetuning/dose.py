"""The dose-response table: what each share of self-correction examples did to incidence and to ordinary answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from esr.analysis.metrics import STATISTICS, summarise
from esr.analysis.paired import compare, holm
from esr.errors import UserError
from esr.finetuning.quality import AnswerLosses, perplexity_change
from esr.finetuning.settings import FOLDER
from esr.studies.study import Study

Prompts = Literal["all", "held out"]

_COUNTS = ("n_trials", "n_scored", "n_unscored", "n_degraded", "n_directions", "n_multi_attempt")


def dose_response(folder: str | Path, prompts: Prompts = "all") -> pd.DataFrame:
    """One row for the parent study (``adapter`` False, share 0) and one per finished share, by share.

    - ``share`` (0..1), ``adapter`` (bool), ``self_correction`` and ``ordinary`` (training examples), ``final_loss``
      (nats per learned token in the last epoch);
    - of *incidence* at the row's own thresholds: ``n_trials``, ``n_scored``, ``n_unscored``, ``n_degraded``,
      ``n_directions``, ``n_multi_attempt``, and for each statistic S of ``esr.analysis.metrics`` ``S``, ``S_low``,
      ``S_high``, ``S_numerator``, ``S_denominator``, ``S_note``;
    - ``multi_attempt_difference`` against the parent, paired on direction, prompt and seed, with ``_low``, ``_high``,
      ``_p``, and ``_p_holm`` over the shares;
    - of *no-steering*: ``unsteered_multi_attempt_rate`` and ``unsteered_first_score`` with ``_low``, ``_high`` and
      ``unsteered_n`` (scored), and ``quality_difference`` (first score against the parent's, paired, points) with
      ``_low``, ``_high``, ``_pairs``;
    - ``perplexity`` of ordinary answers to the held-out prompts, and ``perplexity_ratio`` to the parent's with
      ``_low``, ``_high``, over ``perplexity_prompts`` prompts.

    Intervals: 95 %, clustered by direction (perplexity: by prompt). ``prompts``: ``held out`` looks only at trials
    whose prompt no training example had. Raises UserError when no share is finished.
    """
    parent = Study.open(folder)
    shares = [(own, record) for own, record in _finished(parent.folder)]
    if not shares:
        raise UserError(
            "a dose response needs at least one finished share", f"none in {parent.folder / FOLDER}",
            "Run `esr fine-tune STUDY`",
        )  # fmt: skip
    held_out = json.loads((parent.folder / FOLDER / "data.json").read_text(encoding="utf-8"))["held_out_prompts"]
    seed = parent.config.seed
    base = _part(parent.trials, held_out, prompts)
    base_losses = _losses(parent.folder / FOLDER / "base-quality.json")
    rows = [_row(0.0, False, base, seed) | {"perplexity": base_losses.perplexity}]
    for own, record in shares:
        trials = _part(Study.open(own).trials, held_out, prompts)
        row = _row(record["share"] / 100, True, trials, seed) | _training(own, record)
        row |= _against(trials, base, seed) | _perplexity(base_losses, _losses(own / "quality.json"), seed)
        rows.append(row)
    table = pd.DataFrame(rows)
    defined = table["multi_attempt_difference_p"].notna()
    table["multi_attempt_difference_p_holm"] = math.nan
    table.loc[defined, "multi_attempt_difference_p_holm"] = holm(
        table.loc[defined, "multi_attempt_difference_p"].tolist()
    )
    return table.sort_values(["share", "adapter"], ignore_index=True)


def _finished(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The shares whose study and perplexity are there, by share."""
    found = []
    for path in sorted((folder / FOLDER).glob("share-*/quality.json")):
        found.append((path.parent, json.loads((path.parent / "mix.json").read_text(encoding="utf-8"))))
    return sorted(found, key=lambda item: item[1]["share"])


def _part(trials: pd.DataFrame, held_out: list[str], prompts: Prompts) -> pd.DataFrame:
    wanted = trials["condition"].isin(["incidence", "no-steering"])
    return trials[wanted & trials["prompt"].isin(held_out)] if prompts == "held out" else trials[wanted]


def _row(share: float, adapter: bool, trials: pd.DataFrame, seed: int) -> dict[str, Any]:
    summary = summarise(trials, seed=seed).set_index("condition")
    steered, plain = summary.loc["incidence"], summary.loc["no-steering"]
    row: dict[str, Any] = {"share": share, "adapter": adapter, **{name: steered[name] for name in _COUNTS}}
    for statistic in STATISTICS:
        for part in ("", "_low", "_high", "_numerator", "_denominator", "_note"):
            row[statistic.key + part] = steered[statistic.key + part]
    for key in ("multi_attempt_rate", "mean_first_score"):
        name = f"unsteered_{key.removeprefix('mean_')}"
        row |= {name + part: plain[key + part] for part in ("", "_low", "_high")}
    return row | {"unsteered_n": plain["n_scored"]}


def _against(trials: pd.DataFrame, base: pd.DataFrame, seed: int) -> dict[str, Any]:
    """The paired differences to the parent."""

    def paired(condition: str, statistic: str) -> pd.Series:
        arms = [
            part[part["condition"].eq(condition)].assign(condition=name, trial=name + " " + part["trial"])
            for name, part in (("adapter", trials), ("parent", base))
        ]
        table = compare(pd.concat(arms, ignore_index=True), "adapter", "parent", seed=seed)
        return table[table["statistic"].eq(statistic)].iloc[0]

    rate, quality = paired("incidence", "multi_attempt_rate"), paired("no-steering", "mean_first_score")
    row = {f"multi_attempt_difference{part}": rate[f"difference{part}"] for part in ("", "_low", "_high")}
    row |= {"multi_attempt_difference_p": rate["p"], "multi_attempt_difference_pairs": rate["n_pairs"]}
    row |= {f"quality_difference{part}": quality[f"difference{part}"] for part in ("", "_low", "_high")}
    return row | {"quality_difference_pairs": quality["n_pairs"]}


def _training(own: Path, record: dict[str, Any]) -> dict[str, Any]:
    training = json.loads((own / "adapter" / "training.json").read_text(encoding="utf-8"))
    return {
        "self_correction": record["self_correction"],
        "ordinary": record["ordinary"],
        "final_loss": training["epochs"][-1],
    }


def _perplexity(base: AnswerLosses, own: AnswerLosses, seed: int) -> dict[str, Any]:
    change = perplexity_change(base, own, seed=seed)
    return {
        "perplexity": change.tuned,
        "perplexity_ratio": change.ratio,
        "perplexity_ratio_low": change.low,
        "perplexity_ratio_high": change.high,
        "perplexity_prompts": change.n_prompts,
    }


def _losses(path: Path) -> AnswerLosses:
    return AnswerLosses.from_json(json.loads(path.read_text(encoding="utf-8")))
