"""A study on disk, read back as data."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from esr.errors import UserError
from esr.judging.degraded import DEGRADED_VERSION, is_degraded
from esr.judging.records import Scored
from esr.judging.screen import SCREEN_VERSION, find_restarts
from esr.steering.engine import Response
from esr.studies.calibrating import from_json
from esr.studies.calibration.records import Calibration
from esr.studies.conditions import CONTROL
from esr.studies.config import StudyConfig, read_config
from esr.studies.experiments.activations import TOKEN_ENDS
from esr.studies.experiments.registry import experiments
from esr.studies.judges import Coverage, make_judge
from esr.studies.lock import check_settings
from esr.studies.selecting import Chosen, Exclusion, Selection
from esr.studies.store import JudgedTrial, Store
from esr.subjects.spec import ORGANISMS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from esr.analysis.activations import Activations

_NAN = float("nan")
_REPEATED = frozenset({"condition", "direction", "prompt", "finish", "state", "reason", "source"})
"""Columns in which the same few texts come again and again: one copy of each is kept."""


@dataclass(frozen=True)
class Ran:
    """An experiment that a study has run."""

    key: str
    question: str
    figure: str
    """How it is drawn: ``esr.studies.experiments.registry.Experiment.figure``."""
    controls: Mapping[str, str | None]
    """Its conditions, in order, and the condition each is compared with, if any."""


@dataclass(frozen=True)
class Study:
    """Opened with ``esr.open``. Everything is read when asked for, so a running study can be watched.

    ``compare``, ``comparisons``, ``activations`` and ``figure`` call what lies further on in the flow, for the user's
    sake.
    """

    folder: Path
    config: StudyConfig

    @classmethod
    def open(cls, folder: str | Path) -> Study:
        """Raises UserError when the folder holds no valid study, or settings that are not those of its results."""
        path = Path(folder)
        config = read_config(path)
        if (path / "study.sqlite").exists():
            with Store.reading(path) as store:
                check_settings(store, config)
        return cls(path, config)

    @property
    def is_organism(self) -> bool:
        """Whether the subject ships with the package: its figures say nothing about large models."""
        return self.config.subject.model in ORGANISMS

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial that has been generated and judged by the study's own judge; the columns are those of
        ``esr.analysis.trials.COLUMNS`` and ``threshold``, the direction's own; ``response``, the response's key; and
        where the response continues a given text: ``prefix``, ``prefix_tokens``, ``prefix_restarted`` (the phrase
        screen finds a restart in it) and ``source``, the key of the trial it was taken from. ``text`` is what the judge
        saw: in some conditions only what follows the prefix; then ``judged_from`` is the prefix's length in characters,
        else 0."""
        return self.trials_by(self.judge_key)

    def trials_by(self, judge_key: str) -> pd.DataFrame:
        """``trials`` as another judge sees them. Raises UserError for a judge that has judged nothing here."""
        with Store.reading(self.folder) as store:
            if not store.has_trials():
                return _frame({})
            judge = store.record("judge", judge_key)
            if judge is None:
                raise UserError("a judge has judged this study", judge_key, "Use `esr judge`")
            coverage = Coverage.recorded(judge)
            screens, collapses = store.screens(SCREEN_VERSION), store.collapses(DEGRADED_VERSION)
            chosen = {c.id: c for c in self._selection().chosen}
            thresholds = self.calibration.set_index("direction")["threshold"].to_dict()
            columns: dict[str, list[Any]] = {}  # a list per column: a dictionary per row takes several times as much
            for judged, weight in _given(store.judged_trials(judge_key), coverage):
                row, origin = judged.trial, judged.trial.origin
                text = judged.text[origin.judged_from :]
                screened, degraded = screens.get(row.response), collapses.get(row.response)
                values = {
                    "trial": row.key,
                    "condition": row.condition,
                    "direction": row.direction,
                    "label": chosen[row.direction].label,
                    "prompt_index": row.prompt_index,
                    "prompt": row.prompt,
                    "seed": row.seed,
                    "boost": row.boost,
                    "text": text,
                    "n_tokens": judged.n_tokens,
                    "finish": judged.finish,
                    **_verdict(judged.judgement),
                    "degraded": is_degraded(text) if degraded is None else degraded,
                    "screened": bool(find_restarts(text, row.prompt)) if screened is None else screened,
                    "promoted": chosen[row.direction].promoted,
                    "threshold": thresholds[row.direction],
                    "source": origin.source,
                    "prefix_tokens": origin.tokens,
                    "prefix": judged.text[: origin.characters],
                    "prefix_restarted": bool(find_restarts(judged.text[: origin.characters], row.prompt)),
                    "judged_from": origin.judged_from,
                    "response": row.response,
                    "weight": weight,
                }
                for name, value in values.items():
                    columns.setdefault(name, []).append(sys.intern(value) if name in _REPEATED else value)
        return _frame(columns)

    @property
    def experiments(self) -> dict[str, Ran]:
        """The experiments that were begun, in the order they run. One that is not installed here is left out."""
        with Store.reading(self.folder) as store:
            records = store.records("experiment")
        return {
            key: Ran(key, known.question, known.figure, records[key]["controls"])
            for key, known in experiments().items()
            if key in records
        }

    def result(self, key: str) -> Any:
        """What an experiment that reads trials found, as plain data. Raises UserError when it has not run."""
        with Store.reading(self.folder) as store:
            found = store.record("result", key)
        if found is None:
            raise UserError(f"the experiment {key} has run", "no result", f"Run it: esr run STUDY --experiment {key}")
        return found

    @property
    def activations(self) -> Activations:
        """What the experiment ``activations`` read. Raises UserError when it has not run or read nothing."""
        from esr.analysis.activations import Activations, Reading

        found = self.result("activations")
        with Store.reading(self.folder) as store:
            values = store.readings(found["kind"])
        readings = [Reading(**reading, values=values[reading["trial"]]) for reading in found["readings"]]
        groups = {name: tuple(latents) for name, latents in found["groups"].items()}
        return Activations(tuple(readings), tuple(found["latents"]), groups)

    @property
    def token_ends(self) -> dict[str, list[int]]:
        """Of every trial in ``activations``: the characters of its whole response, given text included, at which its
        tokens end."""
        with Store.reading(self.folder) as store:
            return store.records(TOKEN_ENDS)

    def compare(self, treatment: str, control: str = CONTROL, **options: Any) -> pd.DataFrame:
        """Two conditions compared: see ``esr.analysis.paired.compare`` for columns and options."""
        from esr.analysis.paired import compare

        return compare(self.trials, treatment, control, seed=self.config.seed, **options)

    def comparisons(self, key: str, trials: pd.DataFrame | None = None) -> pd.DataFrame:
        """Every condition of an experiment against its control, one row per statistic as ``compare`` gives them, with
        ``p_holm`` over the experiment. Empty when no control has been measured. ``trials``: the frame, when at hand."""
        from esr.analysis.paired import compare_pairs

        trials = self.trials if trials is None else trials
        ran = self.experiments.get(key)
        present = set(trials["condition"]) if len(trials) else set()
        pairs = [(t, c) for t, c in (ran.controls.items() if ran else ()) if c is not None and {t, c} <= present]
        return compare_pairs(trials, pairs, seed=self.config.seed) if pairs else pd.DataFrame()

    def figure(self, key: str, **look: Any) -> Figure:
        """The figure of an experiment, for matplotlib: ``study.figure("boost-sweep").savefig("sweep.pdf")``.

        Raises UserError when the experiment has not run, or has no figure.
        """
        from esr.reporting.experiments import figure

        return figure(self, key, **look)

    @property
    def judge_key(self) -> str:
        """Key of the judge named in study.toml."""
        return make_judge(self.config.judge, self.config.subject, self.folder).key

    @property
    def judges(self) -> pd.DataFrame:
        """The judges at work on this study: key, name, judged (responses of the grid), unscored (of those)."""
        with Store.reading(self.folder) as store:
            found = store.records("judge")
            counts = {key: store.judged_counts(key) for key in found}
        rows = [(key, judge["name"], *counts[key]) for key, judge in found.items()]
        return pd.DataFrame(rows, columns=["key", "name", "judged", "unscored"])

    @property
    def judge_usage(self) -> pd.DataFrame:
        """What judging has used, one row per judge whose calls were counted (never the rule judge): key, name; calls,
        ``uncounted`` (those of which the provider did not say how many tokens, failed ones among them); input_tokens
        (cached ones included), cached_tokens, output_tokens; dollars at the list prices of ``prices.toml``, NaN where
        none is known: cached tokens at the full price, no discount for batches.
        """
        from esr.studies.planning import price

        with Store.reading(self.folder) as store:
            used, judges = store.judge_calls(), store.records("judge")
        rows = []
        for key, (calls, counted, given, cached, answered) in used.items():
            name = judges.get(key, {}).get("name", key)
            known = price(self.folder, name)
            dollars = _NAN if known is None else (given * known[0] + answered * known[1]) / 1e6
            rows.append((key, name, calls, calls - counted, given, cached, answered, dollars))
        columns = [
            "key", "name", "calls", "uncounted", "input_tokens", "cached_tokens", "output_tokens", "dollars",
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    @property
    def judgements(self) -> pd.DataFrame:
        """One row per trial and judge, for ``esr.judging.agreement``: response, judge, judgement, direction, weight.

        Judges of one name (another rubric, segments) are told apart by the beginning of their keys.
        """
        frames = []
        with Store.reading(self.folder) as store:
            judges = store.records("judge")
            names = Counter(judge["name"] for judge in judges.values())
            for key, judge in judges.items():
                name = judge["name"] if names[judge["name"]] == 1 else f"{judge['name']} {key[-16:][:6]}"
                for judged, weight in _given(store.judged_trials(key), Coverage.recorded(judge)):
                    frames.append((judged.trial.key, name, judged.judgement, judged.trial.direction, weight))
        return pd.DataFrame(frames, columns=["response", "judge", "judgement", "direction", "weight"])

    @property
    def directions(self) -> pd.DataFrame:
        """The directions chosen, one row each: the fields of ``esr.studies.selecting.Chosen``."""
        return _frame([vars(c) for c in self._selection().chosen], Chosen)

    @property
    def exclusions(self) -> pd.DataFrame:
        """What was left out when directions were chosen: step, rule, excluded, left."""
        return _frame([vars(e) for e in self._selection().exclusions], Exclusion)

    @property
    def calibration(self) -> pd.DataFrame:
        """One row per direction: direction, label and the fields of
        ``esr.studies.calibration.records.Calibration``; ``threshold`` is NaN when uncalibrated."""
        with Store.reading(self.folder) as store:
            stored = store.record("calibration", "all")
        frame = _frame([vars(c) for c in from_json(stored or [])], Calibration)
        frame["threshold"] = frame["threshold"].astype(float)
        chosen = self._selection().chosen if stored else ()
        for place, name, texts in ((0, "direction", [c.id for c in chosen]), (1, "label", [c.label for c in chosen])):
            frame.insert(place, name, pd.Series(texts, dtype=object))  # as in _frame: surrogates
        return frame

    @property
    def surrogate(self) -> pd.DataFrame:
        """What the surrogate read: direction, boost, and ``variation``, the mean total variation 0..1 between the
        next-token distributions with and without the boost. Empty without a surrogate."""
        with Store.reading(self.folder) as store:
            stored = store.records("surrogate")
        chosen = [c.id for c in self._selection().chosen] if stored else []
        rows = [
            {"direction": direction, "boost": boost, "variation": value}
            for record in stored.values()
            for direction, values in zip(chosen, record["variation"], strict=True)
            for boost, value in zip(record["boosts"], values, strict=True)
        ]
        return pd.DataFrame(rows, columns=["direction", "boost", "variation"])

    @property
    def stages(self) -> pd.DataFrame:
        """Wall time and work: stage, seconds, tokens, responses."""
        with Store.reading(self.folder) as store:
            return pd.DataFrame(store.stages(), columns=["stage", "seconds", "tokens", "responses"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, hashes of subject and settings, as they were when the thresholds were searched for."""
        with Store.reading(self.folder) as store:
            data: dict[str, Any] = json.loads(store.meta("provenance") or "{}")
        return data | {"settings": self.config.digest(), "judge": self.judge_key}

    @property
    def unsteered_score(self) -> float | None:
        """Mean first-attempt score of the unsteered responses that calibration starts from."""
        return self._selection().unsteered_score

    @property
    def baseline(self) -> pd.DataFrame:
        """The unsteered responses that calibration starts from: prompt, text, first_score (NaN when unscored)."""
        with Store.reading(self.folder) as store:
            rows = store.trials("baseline")
            responses = store.responses([r.response for r in rows])
            grades = store.grades([r.response for r in rows], self.judge_key)
        records = [
            {
                "prompt": row.prompt,
                "text": responses[row.response].text,
                "first_score": _verdict(grades[row.response])["first_score"],
            }
            for row in rows
            if row.response in responses and row.response in grades
        ]
        return _frame(records)

    @property
    def notes(self) -> list[str]:
        """What a reader of the rates must know: who judged, and which directions are not among them."""
        notes = []
        if self.config.judge.name == "rule" and self.config.subject.lexicon is None:
            notes.append(
                "Judged by rules without a lexicon: restarts are a phrase screen and scores are word overlap. Good for"
                " trying things out, no result; let a language model judge (`esr judge`, or [judge] name)."
            )
        status = self.calibration["status"].value_counts()
        if status.get("uncalibrated", 0):
            notes.append(
                f"{status['uncalibrated']} of {status.sum()} directions chosen did not reach the target score within"
                " their bounds and are not among the trials."
            )
        asked, chosen = self.config.directions.count, int(status.sum())
        if chosen and chosen < asked:
            notes.append(f"{chosen} directions passed the rules, {asked} were asked for.")
        return notes

    def progress(self) -> dict[str, tuple[int, int]]:
        """Per condition: (trials judged, trials planned so far)."""
        with Store.reading(self.folder) as store:
            return store.progress(self.judge_key)

    def _selection(self) -> Selection:
        with Store.reading(self.folder) as store:
            stored = store.record("selection", self.config.selection_key())
        return Selection((), (), None) if stored is None else Selection.from_json(stored)


def _given(trials: Iterator[JudgedTrial], coverage: Coverage) -> Iterator[tuple[JudgedTrial, float]]:
    """The trials that a judge of this coverage is given, with how many responses each stands for."""
    for judged in trials:
        row = judged.trial
        response = Response(row.response, (), judged.text, "stop", 0)  # a coverage looks at key and text only
        weight = coverage.weight((row.direction, row.prompt_index, row.seed), row.prompt, response)
        if weight:
            yield judged, weight


def _frame(data: Any, record: type | None = None) -> pd.DataFrame:
    """A frame of records or columns, with the fields of ``record`` even when empty; text stays as Python holds it, for
    pandas' own string type refuses the lone surrogates an untrusted label may have."""
    with pd.option_context("future.infer_string", False):
        return pd.DataFrame(data, columns=None if record is None else [f.name for f in fields(record)])


def _verdict(judgement: Any) -> dict[str, Any]:
    if not isinstance(judgement, Scored):
        return {
            "state": "unscored", "reason": judgement.reason, "n_attempts": _NAN, "explicit_restarts": _NAN,
            "first_score": _NAN, "last_score": _NAN, "improvement": _NAN,
            "multi_attempt": False, "improved": False, "attempts": [], "segments": [],
        }  # fmt: skip
    first, last = judgement.attempts[0].score, judgement.attempts[-1].score
    multi = judgement.explicit_restarts > 0
    return {
        "state": "scored",
        "reason": "",
        "n_attempts": len(judgement.attempts),
        "explicit_restarts": judgement.explicit_restarts,
        "first_score": first,
        "last_score": last,
        "improvement": last - first if multi else _NAN,
        "multi_attempt": multi,
        "improved": multi and last > first,
        "attempts": list(judgement.attempts),
        "segments": list(judgement.segments),
    }
