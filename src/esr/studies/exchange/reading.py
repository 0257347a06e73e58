"""Result files of the reference implementation, read as trials. Their form: see ``esr.studies.exchange.writing``."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from esr.analysis.trials import COLUMNS
from esr.errors import UserError
from esr.judging.degraded import is_degraded
from esr.judging.records import EXPLICIT_KINDS, Attempt, RestartKind, UnscoredReason
from esr.judging.screen import find_restarts
from esr.studies.exchange.attempts import locate_attempts, scored, unscored

_ORDER = ["condition", "direction", "prompt_index", "seed", "trial"]
_INT64 = 2**63


def read_reference(path: str | Path, *, condition: str | None = None) -> pd.DataFrame:
    """Trials of a result file, or of all ``*.json`` of a folder: a frame with the columns of
    ``esr.analysis.trials.COLUMNS`` and ``threshold``, ready for ``esr.summarise`` and ``compare``.

    Trials with an ``esr`` block are what they were in the study. Of the others:

    - ``condition`` is the one given, else what the file says: ``incidence``, ``no-steering``, ``ablation``, the name of
      a prompt variant, ``boost B`` in a sweep. Where two files say the same, their names tell them apart.
    - ``direction`` is ``latent:INDEX``, taking ``feature_index_in_sae`` at its word. ``boost`` is 0 in a file without
      steering, else the trial's threshold. ``prompt_index`` numbers the prompts found, sorted.
    - More than one attempt counts as multi-attempt, as there. ``attempts`` has positions where the later ones' texts,
      or at least their first words, stand in the response; else it is empty, and only the scores are known.
    - A response is unscored, never 0, when it or its score holds an error (``error``, or the reason that an export
      gave), when its attempts are empty (``no attempt``), or when its verdict is missing or has no scores in 0..100
      (``malformed``).
    - What the form does not have: a missing seed is -1, ``n_tokens`` NaN, ``finish`` empty, ``promoted`` False.

    ``frame.attrs["exchange"]`` counts ``files``, ``features_failed`` (entries with an error and no trials),
    ``unreadable`` (entries and trials that are no JSON objects) and ``unlocated`` (multi-attempt responses whose
    attempts were not found). Raises UserError for a file that is missing, no result file or without any trial, and for
    an ``esr`` block that is damaged.
    """
    path = Path(path).expanduser()
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UserError("a folder of results holds JSON files", f"none in {path}")
    documents = [_Document(file) for file in files]
    found = [list(document.rows(condition)) for document in documents]
    files_of = Counter(name for rows in found for name in {row["condition"] for row in rows})
    for document, part in zip(documents, found, strict=True):
        for row in part:
            if files_of[row["condition"]] > 1:
                row["condition"] += f" ({document.stem})"
    rows = [row for part in found for row in part]
    if not rows:
        raise UserError("a result file holds at least one trial", f"none in {path}")
    prompts = {text: i for i, text in enumerate(sorted({row["prompt"] for row in rows}))}
    for row in rows:
        row.setdefault("prompt_index", prompts[row["prompt"]])
    rows = [{name: row[name] for name in COLUMNS} | row for row in rows]
    with pd.option_context("future.infer_string", False):  # pandas' own string type refuses lone surrogates
        frame = pd.DataFrame(rows).sort_values(_ORDER, kind="stable", ignore_index=True)
    twice = frame.loc[frame["trial"].duplicated(), "trial"]
    if not twice.empty:
        raise UserError("a trial occurs once", f"{twice.iloc[0]!r} more than once in {path}")
    frame.attrs["exchange"] = {
        "files": len(files),
        "features_failed": sum(document.failed for document in documents),
        "unreadable": sum(document.unreadable for document in documents),
        "unlocated": int((frame["multi_attempt"] & (frame["attempts"].map(len) == 0)).sum()),
    }
    return frame


class _Document:
    """One result file, with a tally of what could not be read."""

    def __init__(self, file: Path) -> None:
        rule = "a result file is JSON with results_by_feature"
        try:
            data = json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(rule, f"{file.name}: {error}") from None
        self.data = _object(data)
        self.stem = file.stem.encode("utf-8", "replace").decode()
        found = self.data.get("results_by_feature")
        if isinstance(found, dict):
            found = [{"feature_index_in_sae": key} | _object(feature) for key, feature in found.items()]
        if not isinstance(found, list):
            raise UserError(rule, f"{file.name} without it")
        self.features = [_object(feature) for feature in found]
        self.failed = sum(bool(feature.get("error")) and not feature.get("trials") for feature in self.features)
        self.unreadable = sum(not feature for feature in self.features)

    @property
    def condition(self) -> str | None:
        """What the file says its condition is; None: another one for every boost."""
        config, metadata = _object(self.data.get("experiment_config")), _object(self.data.get("experiment_metadata"))
        variant = metadata.get("prompt_variant_id") or config.get("prompt_variant_id")
        if isinstance(variant, str) and variant:
            return variant
        if self.data.get("boost_levels") or self.data.get("n_boost_levels"):
            return None
        if self.data.get("ablated_latents"):
            return "ablation"
        return "no-steering" if config.get("disable_steering") else "incidence"

    def rows(self, condition: str | None) -> Iterator[dict[str, Any]]:
        """The trials as rows of the frame, without ``prompt_index`` where only the texts of prompts are known."""
        condition = condition or self.condition
        steered = not _object(self.data.get("experiment_config")).get("disable_steering")
        for i, feature in enumerate(self.features):
            trials = feature.get("trials")
            for j, trial in enumerate(trials if isinstance(trials, list) else []):
                if not isinstance(trial, dict):
                    self.unreadable += 1
                    continue
                own = {key: value for key, value in feature.items() if key != "error"} | trial
                text, prompt, label = (_text(own.get(key)) for key in ("response", "prompt", "feature_label"))
                row = {"prompt": prompt, "text": text, "label": label, "seed": _seed(own.get("seed"))}
                if "esr" in trial:
                    yield row | _from_block(trial["esr"], f"trial {j + 1} of entry {i + 1} in {self.stem}")
                    continue
                boost = _number(own.get("threshold")) if steered else 0.0
                yield row | {
                    "trial": f"{self.stem}/{i}/{j}",
                    "condition": condition or f"boost {boost:g}",
                    "direction": _direction(own.get("feature_index_in_sae"), i),
                    "boost": boost,
                    "n_tokens": math.nan,
                    "finish": "",
                    **_verdict(own, text),
                    "degraded": is_degraded(text),
                    "screened": bool(find_restarts(text, prompt)),
                    "promoted": False,
                    "weight": 1.0,
                    "threshold": _number(feature.get("threshold")),
                    "segments": [],
                }


def _verdict(trial: dict[str, Any], text: str) -> dict[str, Any]:
    score = _object(trial.get("score"))
    error = trial.get("error") or score.get("error")
    if error:
        return unscored(error if error in get_args(UnscoredReason) else "error")
    attempts = score.get("attempts")
    if attempts == []:
        return unscored("no attempt")
    if not isinstance(attempts, list) or not all(isinstance(a, dict) for a in attempts):
        return unscored("malformed")
    scores = [_number(a.get("score")) for a in attempts]
    if not all(0 <= s <= 100 for s in scores):
        return unscored("malformed")
    texts = [_text(a.get("attempt_text")) for a in attempts]
    return scored(scores, len(scores) - 1) | {"attempts": locate_attempts(texts, scores, text)}


class _At(BaseModel):
    """One attempt of a block."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: int
    end: int
    score: float
    quote: str
    kind: RestartKind | None


class _Block(BaseModel):
    """What an ``esr`` block says about a trial: columns of the frame; further ones are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    trial: str
    condition: str
    direction: str
    prompt_index: int
    boost: float
    n_tokens: int
    finish: Literal["stop", "length"]
    reason: str
    degraded: bool
    screened: bool
    promoted: bool
    weight: float = Field(ge=0)
    threshold: float | None
    segments: list[float]
    attempts: list[_At]


def _from_block(data: Any, where: str) -> dict[str, Any]:
    try:
        block = _Block.model_validate(data)
        attempts = [Attempt(**at.model_dump()) for at in block.attempts]
    except (ValidationError, UserError) as error:
        found = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("attempts",), "msg": str(error)}
        raise UserError(
            "an esr block is as `esr export` wrote it",
            f"{'.'.join(map(str, found['loc']))}: {found['msg']}, in {where}",
            "Export again, or remove the block",
        ) from None
    row = block.model_dump() | {"threshold": math.nan if block.threshold is None else block.threshold}
    if not attempts:
        return row | unscored(block.reason)
    explicit = sum(a.kind in EXPLICIT_KINDS for a in attempts)
    return row | scored([a.score for a in attempts], explicit) | {"attempts": attempts}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    """NaN for what is no number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if is_number else math.nan


def _seed(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _INT64 else -1


def _direction(index: Any, position: int) -> str:
    text = str(index)
    return f"latent:{text}" if text.isascii() and text.isdigit() else f"feature:{position}"
