"""A study as an inspect_ai log: ``inspect view`` shows it, ``inspect_ai.log.read_eval_log`` reads it (extra ``judge``).

A sample is a trial: the prompt as the user's message, the response (with the text it was made to begin with) as the
model's, one score per judge, and as metadata what was done. A score's value is a dictionary: ``first`` and ``last``
(0-100), ``attempts``, ``explicit_restarts``, and ``esr``, 1 for a response that restarted explicitly and improved.
What a judge left unscored is unscored there, with the reason. The results hold the clustered rates of every condition.
Trials are written one by one: memory does not hold a second copy of a large study.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from esr.errors import UserError, missing_extra
from esr.judging.records import Attempt

if TYPE_CHECKING:
    from esr.studies.study import Study

_DONE_TO_IT = (
    "condition", "direction", "label", "boost", "threshold", "prompt_index", "seed", "n_tokens", "degraded", "screened",
    "promoted", "weight", "source", "prefix_tokens",
)  # fmt: skip
_RATES = ("esr_rate", "multi_attempt_rate", "improvement_rate", "mean_first_score")


def write_eval(study: Study, path: str | Path) -> Path:
    """Write the judged trials of a study to one ``.eval`` file, which is replaced if it is there.

    Raises UserError when no trial has been judged, inspect_ai is missing, or the file cannot be written.
    """
    try:
        from inspect_ai.log import EvalLog, EvalStats
    except ImportError:
        raise missing_extra(".eval logs", "judge", "inspect_ai") from None
    path = Path(path).expanduser()
    if path.suffix != ".eval":
        raise UserError("inspect knows its logs by their names, which end in .eval", str(path))
    trials = study.trials
    if trials.empty:
        raise UserError(
            "an export needs judged trials", f"none in {study.folder}", "Run the study first: esr run STUDY"
        )
    others = _by_other_judges(study)
    spec = _spec(study, trials)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
            summaries = []
            own = study.config.judge.name
            for sample in _samples(study, trials, own, others):
                name = f"samples/{sample.id}_epoch_{sample.epoch}.json"
                file.writestr(name, sample.model_dump_json(exclude_none=True))
                summaries.append(sample.summary().model_dump(mode="json", exclude_none=True))
            file.writestr("summaries.json", json.dumps(summaries))
            at = EvalStats(started_at=spec.created, completed_at=spec.created)
            log = EvalLog(status="success", eval=spec, results=_results(study, trials, own), stats=at)
            file.writestr("header.json", log.model_dump_json(exclude_none=True, exclude={"samples", "location"}))
        os.replace(partial, path)
    except OSError as error:
        raise UserError("the file of an export can be written", f"{error.strerror}: {path}") from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def _by_other_judges(study: Study) -> dict[str, dict[str, Any]]:
    """By the name of every other judge (its key's beginning with it where two have one name): trial -> its verdict."""
    judges = study.judges
    names = judges["name"].value_counts()
    found: dict[str, dict[str, Any]] = {}
    for key, name in zip(judges["key"], judges["name"], strict=True):
        if key == study.judge_key:
            continue
        rows = study.trials_by(key)
        title = str(name) if names[name] == 1 and name != study.config.judge.name else f"{name} {str(key)[-16:][:6]}"
        found[title] = {str(row.trial): row for row in rows.drop(columns=["text", "prefix"]).itertuples()}
    return found


def _samples(study: Study, trials: pd.DataFrame, own: str, others: Mapping[str, Mapping[str, Any]]) -> Iterator[Any]:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput

    model = _text(study.config.subject.model)
    for row in trials.itertuples():
        key = str(row.trial)
        prompt, prefix, text = _text(row.prompt), _text(row.prefix), _text(row.text)
        response = prefix[: int(str(row.judged_from))] + text
        scores = {own: _score(row)}
        scores |= {name: _score(judged[key]) for name, judged in others.items() if key in judged}
        metadata = {name: _plain(getattr(row, name)) for name in _DONE_TO_IT}
        yield EvalSample(
            id=key,
            epoch=1,
            input=prompt,
            target="",
            messages=[ChatMessageUser(content=prompt), ChatMessageAssistant(content=response, model=model)],
            output=ModelOutput.from_content(
                model, response, stop_reason="stop" if row.finish == "stop" else "max_tokens"
            ),
            scores=scores,
            metadata=metadata | {"attempts": _attempts(row)},
        )


def _score(row: Any) -> Any:
    from inspect_ai.scorer import Score

    found = {"state": row.state, "reason": _text(row.reason), "attempts": _attempts(row)}
    if row.state != "scored":
        return Score.unscored(explanation=f"unscored: {_text(row.reason)}", metadata=found)
    value = {
        "first": float(row.first_score),
        "last": float(row.last_score),
        "attempts": float(row.n_attempts),
        "explicit_restarts": float(row.explicit_restarts),
        "esr": float(row.improved),
    }
    said = [
        f"attempt {number}{'' if a.kind is None else f' ({a.kind})'}: {a.score:g}, begins {_text(a.quote)!r}"
        for number, a in enumerate(row.attempts, 1)
    ]
    return Score(
        value=value,
        explanation="\n".join(said),
        metadata=found,
    )


def _attempts(row: Any) -> list[dict[str, Any]]:
    attempts: list[Attempt] = row.attempts
    return [{name: _plain(value) for name, value in asdict(attempt).items()} for attempt in attempts]


def _spec(study: Study, trials: pd.DataFrame) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec

    return EvalSpec(
        eval_id=study.config.digest(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task="esr",
        task_display_name=_text(study.config.name),
        dataset=EvalDataset(name=_text(study.config.prompts.file), samples=len(trials)),
        model=_text(study.config.subject.model),
        config=EvalConfig(epochs=1),
        packages={"esr": version("esr")},
        metadata={
            "study": _text(study.config.name),
            "settings": _plain(study.config.locked()),
            "judge": study.judge_key,
        },
    )


def _results(study: Study, trials: pd.DataFrame, own: str) -> Any:
    """The rates of every condition by the study's own judge, each with its interval and counts beside it."""
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore

    from esr.analysis.metrics import summarise

    scores = []
    for row in summarise(trials, seed=study.config.seed).to_dict("records"):
        counts = {
            name: _plain(value) for name, value in row.items() if str(name).startswith("n_") or str(name) == "condition"
        }
        metrics = {
            name: EvalMetric(
                name=name,
                value=float(row[name]),
                metadata={"low": _plain(row[f"{name}_low"]), "high": _plain(row[f"{name}_high"])},
            )
            for name in _RATES
            if np.isfinite(row[name])
        }
        scores.append(EvalScore(name=_text(row["condition"]), scorer=own, metrics=metrics, metadata=counts))
    return EvalResults(total_samples=len(trials), completed_samples=len(trials), scores=scores)


def _text(value: object) -> str:
    """Text as UTF-8 can hold it: a lone surrogate becomes an escape."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> Any:
    """As JSON has it; NaN becomes null."""
    if isinstance(value, Mapping):
        return {_text(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        return _text(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value
