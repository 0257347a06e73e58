"""Judge a study again, by another judge: no generation, and every judge's verdicts stay."""

from __future__ import annotations

import time
from pathlib import Path

from esr.studies.config import JudgeSettings, StudyConfig
from esr.studies.grading import Grader, Place, Progress
from esr.studies.judges import Coverage, make_judge, preflight
from esr.studies.store import Store

TRANSIENT = ("error", "timeout")
"""Reasons that lie with the network or the provider, not with the response."""


def regrade(
    folder: Path, config: StudyConfig, settings: JudgeSettings, progress: Progress, *, retry: bool = False
) -> str:
    """Have every response of the study's grid judged; what this judge has judged is kept. Returns the judge's key.

    retry: ask again for responses this judge left unscored for a TRANSIENT reason.

    Raises UserError before any call when the judge cannot be asked, or the study has no responses.
    """
    judge = make_judge(settings, config.subject, folder)
    preflight(judge)
    with Store.reading(folder):
        pass  # a study without results is an error before a lock is taken
    with Store.writing(folder) as store:
        store.set_record("judge", judge.key, {"name": judge.name, "settings": settings.model_dump(mode="json")})
        if retry:
            store.drop_unscored(judge.key, TRANSIENT)
        rows = store.trials()
        places = {row.response: Place(row.prompt, (row.direction, row.prompt_index, row.seed)) for row in rows}
        responses = store.responses(list(places))
        stage = f"judging by {judge.name}"
        progress.start(stage, len(responses))
        began = time.perf_counter()
        try:
            Grader(store, judge, progress, Coverage.of(settings)).grade(iter(responses.values()), places)
        finally:
            store.add_to_stage(stage, time.perf_counter() - began, 0, 0)
        progress.end()
    return judge.key
