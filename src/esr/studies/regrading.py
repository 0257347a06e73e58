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
from esr.studies.grading import LEFT_OUT, Budget, Grader, Place, Progress
from esr.studies.judges import Coverage, make_judge, preflight, record_judge, recorded_coverage
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
    retry: bool
    """Whether ``missing`` has what was left unscored for a TRANSIENT reason."""

    @property
    def tokens(self) -> int:
        """Tokens of the missing responses."""
        return sum(len(r.token_ids) for r in self.missing.values())


def prepare(
    folder: Path, config: StudyConfig, settings: JudgeSettings, *, retry: bool = False, sample: int | None = None
) -> Regrading:
    """Find out what is missing; asks nobody.

    retry: also what this judge left unscored for a TRANSIENT reason. sample: give the judge every response that the
    study's own judge found multi-attempt and about ``sample`` of the others, weighted. Raises UserError when the judge
    cannot be asked, was given more before, or the study has no responses.
    """
    judge = make_judge(settings, config.subject, folder)
    preflight(judge)
    with Store.reading(folder) as store:
        rows = store.trials()
        if not rows:
            raise UserError("a study has trials to judge", f"none in {folder}", "Run it first: esr run STUDY")
        coverage = Coverage.of(settings)
        if sample is not None:
            cells = {row.response: (row.direction, row.prompt_index, row.seed) for row in rows}
            own = store.grades(list(cells), make_judge(config.judge, config.subject, folder).key)
            multi = {key: isinstance(g, Scored) and g.explicit_restarts > 0 for key, g in sorted(own.items())}
            coverage = Coverage(sample=stratified_sample(multi, rest=sample, seed=config.seed, places=cells))
        coverage = _not_narrower(recorded_coverage(store, judge), coverage)
        missing, places = left_over(store, judge, coverage, retry=retry)
    return Regrading(folder, judge, settings, coverage, missing, places, retry)


def left_over(
    store: Store, judge: Judge, coverage: Coverage, *, retry: bool = False
) -> tuple[dict[str, Response], dict[str, Place]]:
    """The grid's responses that a judge of this coverage is given and has not judged, by key, and every response's
    place. ``retry``: also those it left unscored for a TRANSIENT reason."""
    cells = {row.response: ((row.direction, row.prompt_index, row.seed), row) for row in store.trials()}
    grades = store.grades(list(cells), judge.key)
    missing = {
        key: response
        for key, response in store.responses(list(cells)).items()
        if _open(grades.get(key), retry) and coverage.weight(cells[key][0], cells[key][1].prompt, response) > 0
    }
    return missing, {key: Place(row.prompt, cell, row.origin.judged_from) for key, (cell, row) in cells.items()}


def _not_narrower(before: Coverage | None, coverage: Coverage) -> Coverage:
    """The coverage to judge by. Verdicts are weighted by the widest one that is complete, so none is done by less."""
    if before is None or not before.includes(coverage):
        return coverage
    if before.width > coverage.width:
        given = "everything" if before.width >= 1 else f"what is screened and {before.width:g} of the others"
        asked = "a sample" if coverage.sample is not None else f"{coverage.width:g} of what is not screened"
        raise UserError(
            "what a judge is given of a study grows, it does not shrink",
            f"{asked}, and this judge was given {given} before",
            "Leave out --sample and --screened, or ask for no less than before; another rubric is another judge",
        )
    return before


def regrade(work: Regrading, progress: Progress, budget: Budget | None = None) -> str:
    """Have the missing responses judged. Returns the judge's key. Raises UserError once the ``budget`` is spent."""
    judge, coverage = work.judge, work.coverage
    with Store.writing(work.folder) as store:
        if recorded_coverage(store, judge) is None:
            record_judge(store, judge, work.settings, coverage)
        now = store.grades(list(work.missing), judge.key)  # another process may have judged since ``prepare``
        missing = {key: response for key, response in work.missing.items() if _open(now.get(key), work.retry)}
        store.drop_grades(judge.key, [key for key in missing if key in now and now[key] != LEFT_OUT])
        stage = f"judging by {judge.name}"
        progress.start(stage, len(missing))
        began = time.perf_counter()
        places = {key: work.places[key] for key in missing}
        try:
            with stop.finishing():
                Grader(store, judge, progress, coverage, budget).grade(iter(missing.values()), places)
        finally:
            store.add_to_stage(stage, time.perf_counter() - began, 0, 0)
        before = recorded_coverage(store, judge)
        if before is None or (not before.includes(coverage) and not left_over(store, judge, coverage)[0]):
            record_judge(store, judge, work.settings, coverage)  # a wider coverage counts once it is complete
        progress.end()
    return judge.key


def _open(judgement: Judgement | None, retry: bool) -> bool:
    """Whether a verdict is to be asked for where this one is stored."""
    if judgement is None or judgement == LEFT_OUT:
        return True
    return retry and isinstance(judgement, Unscored) and judgement.reason in TRANSIENT
