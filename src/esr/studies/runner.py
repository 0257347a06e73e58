"""The one runner: subject, directions, calibration, then the grid under every condition asked for."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from esr.directions.concreteness import ConcretenessGrader
from esr.errors import UserError
from esr.steering.interventions import Direction
from esr.steering.make import Check, load_for, make_check, make_engine
from esr.studies.asking import Asker
from esr.studies.calibrating import calibrate, from_json, read_surrogate, to_json
from esr.studies.calibration.records import Calibration
from esr.studies.conditions import Condition, start_from_json
from esr.studies.config import StudyConfig
from esr.studies.experiments.registry import Experiment, Settings, wanted
from esr.studies.grading import Budget, Grader, Progress
from esr.studies.grid import Cell, content_key, draw_cells
from esr.studies.judges import Coverage, make_judge, preflight, record_judge, recorded_coverage
from esr.studies.lab import Lab
from esr.studies.lock import check_experiment, experiment_has_run, hold_files, hold_settings, is_locked
from esr.studies.measure import Measurer
from esr.studies.prompts import study_prompts
from esr.studies.selecting import Candidates, Selection, baseline_tasks, select
from esr.studies.store import Store
from esr.subjects.loading import Subject

_PACKAGES = ("esr", "torch", "transformers", "sae-lens", "numpy")


def run_study(
    folder: Path,
    config: StudyConfig,
    experiments: Sequence[str],
    progress: Progress,
    concreteness: ConcretenessGrader | None = None,
    budget: Budget | None = None,
) -> None:
    """Do what is missing of the experiments; what is stored is kept. ``concreteness`` grades labels; default: by rule.
    ``budget``: judging ends with a UserError once it is spent.

    Raises UserError for everything the user can put right, before any generation where it can be known before:
    unknown experiments, prompts, judge, a subject that does not fit together, settings that changed.
    """
    chosen = wanted(experiments, sae=config.subject.sae is not None)
    settings = {e.key: config.settings_of(e.key) for e in chosen}
    for experiment in chosen:
        if experiment.check is not None:
            experiment.check(folder, config, settings[experiment.key])
    prompts = tuple(study_prompts(config.prompts.file, folder, config.subject.model))
    judge = make_judge(config.judge, config.subject, folder)
    preflight(judge)
    with Store.writing(folder) as store:
        hold_settings(store, config)
        for key, values in settings.items():
            check_experiment(store, key, values.model_dump(mode="json"))
        transformers.utils.logging.disable_progress_bar()  # ours says more
        progress.start("loading", 0)
        subject = load_for(config.subject, config.engine)
        asker = Asker(config, subject, prompts)
        candidates = Candidates(asker, folder)
        _check_requests(asker, candidates, make_check(subject, config.engine), _templates(folder, config, chosen))
        hashes = {"weights": subject.fingerprint, "prompts": content_key(list(prompts)), "judge's rules": judge.key}
        hold_files(store, hashes | candidates.hashes)
        subject_key = content_key(config.subject.digest(), subject.fingerprint)
        _hold_provenance(store, subject, {})
        coverage = Coverage.of(config.judge)
        record_judge(store, judge, config.judge, coverage)
        coverage = recorded_coverage(store, judge) or coverage  # `esr judge` may have given this judge more since
        grader = Grader(store, judge, progress, coverage, budget)
        progress.end()
        with closing(make_engine(subject, config.engine, config.subject)) as engine:
            measurer = Measurer(engine, grader, subject_key)
            _Run(candidates, asker, measurer, folder, chosen, settings, progress, concreteness).all()


def _templates(folder: Path, config: StudyConfig, chosen: Sequence[Experiment]) -> dict[str, str]:
    """Everything that is asked, by the words that name it in an error; the bare prompts first."""
    asked = {"": "{prompt}"}
    for experiment in chosen:
        if experiment.templates is not None:
            found = experiment.templates(folder, config, config.settings_of(experiment.key))
            asked |= {f" of {experiment.key}, {name}": template for name, template in found.items()}
    return asked


def _check_requests(asker: Asker, candidates: Candidates, check: Check, templates: Mapping[str, str]) -> None:
    """Every prompt fits into every template, whichever label it names, before anything is generated."""
    label = max((candidates.label(i) for i in candidates.ids), key=len, default="")
    named = Direction("check", np.zeros(asker.subject.d_model, np.float32), label)
    for name, template in templates.items():
        condition, direction = Condition("check", template=template), named if "{label}" in template else None
        for prompt in range(len(asker.prompts)):
            request = asker.task("trial", condition, Cell(0, prompt, 0), direction, 0.0).request
            check(replace(request, id=f"for prompt {prompt + 1}{name}"))


def _hold_provenance(store: Store, subject: Subject, engine: Mapping[str, str]) -> None:
    """Store what the study is computed with, until its thresholds are known. ``engine``: what it says about itself."""
    if is_locked(store):
        return
    provenance = json.loads(store.meta("provenance") or "{}")  # a later run may find all stored and start no engine
    provenance |= {p: version(p) for p in _PACKAGES} | dict(engine)
    provenance |= {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "dtype": subject.spec.dtype,
        "weights": subject.fingerprint,
        "subject": subject.spec.digest(),
    }
    store.set_meta("provenance", json.dumps(provenance))


def _surrogate_key(asker: Asker, directions: Sequence[Direction], subject_key: str) -> str:
    """Of all that the surrogate's reading depends on."""
    config = asker.config
    read = [[d.id, d.digest] for d in directions], config.calibration.describe()
    return content_key(*read, config.selection_key(), list(asker.prompts), subject_key)


@dataclass
class _Run:
    candidates: Candidates
    asker: Asker
    measurer: Measurer
    folder: Path
    experiments: list[Experiment]
    settings: Mapping[str, Settings]
    progress: Progress
    concreteness: ConcretenessGrader | None

    def all(self) -> None:
        selection = self._selection()
        # the label as it was: a template may name it, and label files change
        directions = [replace(self.candidates.by_id(c.id), label=c.label) for c in selection.chosen]
        calibrations = self._calibrations(directions, selection.unsteered_score)
        self._experiments(self._lab(directions, calibrations))

    def _selection(self) -> Selection:
        store = self.measurer.grader.store
        key = self.asker.config.selection_key()
        stored = store.record("selection", key)
        if stored is not None:
            return Selection.from_json(stored)
        tasks = baseline_tasks(self.asker)
        self.progress.start("directions", 0)  # how many are tried shows on the way
        baseline = self.measurer.measure("directions", tasks)
        selection = select(self.asker, self.measurer, self.candidates, baseline, self.concreteness)
        store.set_record("selection", key, selection.to_json())
        self.progress.end()
        return selection

    def _calibrations(self, directions: list[Direction], unsteered: float | None) -> list[Calibration]:
        store = self.measurer.grader.store
        stored = store.record("calibration", "all")
        if stored is not None:
            return from_json(stored)
        settings = self.asker.config.calibration
        surrogate = self._surrogate(directions) if settings.surrogate else None
        self.progress.start("calibration", settings.rounds * settings.repeats * len(directions))
        results = calibrate(self.asker, self.measurer, directions, unsteered, surrogate)
        _hold_provenance(store, self.asker.subject, self.measurer.engine.about())
        store.set_record("calibration", "all", to_json(results))
        self.progress.end()
        return results

    def _surrogate(self, directions: list[Direction]) -> Any:
        """The surrogate's reading, stored when it is complete; a killed one is done again."""
        store = self.measurer.grader.store
        key = _surrogate_key(self.asker, directions, self.measurer.subject_key)
        stored = store.record("surrogate", key)
        if stored is None:
            boosts, texts = (
                self.asker.config.calibration.surrogate_boosts,
                self.asker.config.calibration.surrogate_texts,
            )
            self.progress.start("surrogate", len(directions) * boosts * texts)
            stored = read_surrogate(
                self.asker, self.measurer, directions, lambda passes: self.progress.advance(passes, 0, 0)
            )
            store.forget("surrogate")  # of another study that this was before
            store.set_record("surrogate", key, stored)
            self.progress.end()
        return stored

    def _lab(self, directions: list[Direction], calibrations: list[Calibration]) -> Lab:
        config = self.asker.config
        usable = [(d, c.threshold) for d, c in zip(directions, calibrations, strict=True) if c.threshold is not None]
        if not usable:
            reasons = "; ".join(sorted({c.reason for c in calibrations})[:3])
            raise UserError(
                "at least one direction reaches the target score", f"none of {len(directions)}: {reasons}",
                "Widen the calibration bounds or choose other directions",
            )  # fmt: skip
        ids = [d.id for d, _ in usable]
        cells = draw_cells(config.seed, "trials", ids, len(self.asker.prompts), config.prompts.per_direction)
        chosen, thresholds = zip(*usable, strict=True)
        return Lab(self.asker, self.measurer, self.folder, chosen, thresholds, cells, self.progress)

    def _experiments(self, lab: Lab) -> None:
        """Experiments whose needs are done are measured together, until all are done."""
        left, done, names = list(self.experiments), set[str](), dict[str, str]()
        while left:
            ready = [e for e in left if done.issuperset(e.needs)]
            conditions: list[Condition] = []
            for experiment in ready:
                conditions += self._prepared(experiment, lab, names)
            lab.measure(conditions)
            done |= {e.key for e in ready}
            left = [e for e in left if e not in ready]

    def _prepared(self, experiment: Experiment, lab: Lab, names: dict[str, str]) -> list[Condition]:
        """An experiment's work, done once, and its conditions. Both are noted in the study, settings first but not
        before they succeed, so that what made them fail can be changed. The trials of a condition are those it first
        had: verdicts that come later do not choose others. ``names``: the experiment of every condition so far."""
        key, settings, store = experiment.key, self.settings[experiment.key], lab.store
        noted = store.record("experiment", key) if experiment_has_run(store, key) else None
        if noted is None:
            noted = {"settings": settings.model_dump(mode="json"), "controls": {}}
        if experiment.work is not None and store.record("result", key) is None:
            self.progress.start(key, 0)
            result = experiment.work(lab, settings)
            store.set_record("experiment", key, noted)
            store.set_record("result", key, result)
            self.progress.end()
        conditions = [] if experiment.conditions is None else list(experiment.conditions(lab, settings))
        for condition in conditions:
            if condition.name in names:
                raise UserError(
                    "conditions of one study have their own names",
                    f"{condition.name} in {names[condition.name]} and in {key}",
                )
            names[condition.name] = key
        if "starts" in noted:
            before = {name: tuple(map(start_from_json, starts)) for name, starts in noted["starts"].items()}
            return [replace(c, starts=before.get(c.name)) for c in conditions if c.name in noted["controls"]]
        noted["controls"] = {condition.name: condition.control for condition in conditions}
        noted["starts"] = {c.name: [asdict(start) for start in c.starts] for c in conditions if c.starts is not None}
        store.set_record("experiment", key, noted)
        return conditions
