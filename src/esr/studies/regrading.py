"""Judge a study again, by another judge: no generation, and every judge's verdicts stay."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from esr.errors import UserError
from esr.judging.agreement import stratified_sample
from esr.judging.records import Judge, Judgement, Scored, Unscored
from esr.steering.engine import Response
from esr.steering.stopping import stop
from esr.studies.config import JudgeSettings, StudyConfig
from esr.studies.grading import LEFT_OUT, Grader, Place, Progress
from esr.studies.judges import Coverage, make_judge, preflight, record_judge
from esr.studies.store import Store

TRANSIENT = ("error", "timeout")
"""Reasons that lie with the network or the provider, not with the response."""


@dataclass(frozen=True)
class Regrading:
    """What one judge is still to do on one study. Made by ``prepare``, done by ``regrade``."""

    folder: Path
    judge: Judge
    settings: JudgeSettings
    coverage: Coverage
    missing: dict[str, Response]
    """Responses of the grid the judge is given and has not judged, by key."""
    places: dict[str, Place]
    """Of every response of the grid."""

    @property
    def tokens(self) -> int:
        """Tokens of the missing responses."""
        return sum(len(r.token_ids) for r in self.missing.values())


def prepare(
    folder: Path, config: StudyConfig, settings: JudgeSettings, *, retry: bool = False, sample: int | None = None
) -> Regrading:
    """Find out what is missing; asks nobody.

    retry: also what this judge left unscored for a TRANSIENT reason. sample: give the judge every response that the
    study's own judge found multi-attempt and ``sample`` of the others, weighted. Raises UserError when the judge cannot
    be asked, or the study has no responses.
    """
    judge = make_judge(settings, config.subject, folder)
    preflight(judge)
    with Store.reading(folder) as store:
        rows = store.trials()
        if not rows:
            raise UserError("a study has trials to judge", f"none in {folder}", "Run it first: esr run STUDY")
        places = {
            row.response: Place(row.prompt, (row.direction, row.prompt_index, row.seed), row.origin.judged_from)
            for row in rows
        }
        responses = store.responses(list(places))
        grades = store.grades(list(places), judge.key)
        coverage = Coverage.of(settings)
        if sample is not None:
            own = store.grades(list(places), make_judge(config.judge, config.subject, folder).key)
            multi = {key: isinstance(g, Scored) and g.explicit_restarts > 0 for key, g in sorted(own.items())}
            drawn = stratified_sample(multi, rest=sample, seed=config.seed)
            coverage = Coverage(sample=drawn)
    missing = {}
    for key, response in responses.items():
        cell = places[key].cell
        assert cell is not None
        given = coverage.weight(cell, places[key].prompt, response) > 0
        if given and (key not in grades or grades[key] == LEFT_OUT or (retry and _transient(grades[key]))):
            missing[key] = response
    return Regrading(folder, judge, settings, coverage, missing, places)


def regrade(work: Regrading, progress: Progress) -> str:
    """Have the missing responses judged. Returns the judge's key."""
    judge, coverage = work.judge, work.coverage
    with Store.writing(work.folder) as store:
        if store.record("judge", judge.key) is None:
            record_judge(store, judge, work.settings, coverage)
        store.drop_grades(judge.key, list(work.missing))
        stage = f"judging by {judge.name}"
        progress.start(stage, len(work.missing))
        began = time.perf_counter()
        places = {key: work.places[key] for key in work.missing}
        try:
            with stop.finishing():
                Grader(store, judge, progress, coverage).grade(iter(work.missing.values()), places)
        finally:
            store.add_to_stage(stage, time.perf_counter() - began, 0, 0)
        record_judge(store, judge, work.settings, coverage)  # a wider coverage counts once it is complete
        progress.end()
    return judge.key


def _transient(judgement: Judgement) -> bool:
    return isinstance(judgement, Unscored) and judgement.reason in TRANSIENT
