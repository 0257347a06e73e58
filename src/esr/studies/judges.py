"""From settings to a judge, and which responses it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esr.judging.records import Judge
from esr.judging.screen import find_restarts
from esr.steering.engine import Response
from esr.studies.config import TRANSPORT, JudgeSettings
from esr.studies.grid import content_key
from esr.studies.store import Store
from esr.subjects.spec import SubjectSpec


def make_judge(settings: JudgeSettings, subject: SubjectSpec, folder: Path) -> Judge:
    """The judge of these settings. Asks nobody and needs no key: see ``preflight``.

    Raises UserError for an unreadable lexicon or rubric.
    """
    if settings.name == "rule":
        from esr.judging.lexicon import Lexicon
        from esr.judging.rule import RuleJudge

        path = subject.lexicon_path()
        return RuleJudge(None if path is None else Lexicon.load(path))
    from esr.judging.model import ModelJudge

    return ModelJudge(
        settings.name,
        rubric=None if settings.rubric is None else folder / settings.rubric,
        segments=settings.segments,
        max_tries=settings.max_tries,
        timeout=settings.timeout,
        max_connections=settings.max_connections,
        base_url=settings.base_url,
        batch=settings.batch,
    )


def preflight(judge: Judge) -> None:
    """Check before any work that the judge can be asked.

    Raises UserError for a missing extra, an unknown provider or a missing key.
    """
    check = getattr(judge, "preflight", None)
    if check is not None:
        check()


def record_judge(store: Store, judge: Judge, settings: JudgeSettings, coverage: Coverage) -> None:
    """Note that a judge works on the study, and what it is given. The widest coverage so far stands: its verdicts are
    there. How the judge is reached is not stored, an address may hold a password.

    Every verdict is weighted by what is noted here, so a wider coverage is noted once it is complete, not before; and
    until the grid has trials, any.
    """
    before = recorded_coverage(store, judge)
    if before is not None and before.includes(coverage) and store.has_trials():
        return
    plain = settings.model_dump(mode="json", exclude=TRANSPORT)
    weights = None if coverage.sample is None else dict(coverage.sample)
    store.set_record("judge", judge.key, {"name": judge.name, "settings": plain, "sample": weights})


def recorded_coverage(store: Store, judge: Judge) -> Coverage | None:
    """What the study notes of what a judge is given; None for a judge that has not worked on it."""
    found = store.record("judge", judge.key)
    return None if found is None else Coverage.recorded(found)


@dataclass(frozen=True)
class Coverage:
    """Which of the grid's responses a judge is given.

    With a share below 1: every response with a restart phrase, and each other place of the grid with that probability.
    A place is drawn by hash, so it is drawn in all conditions or in none, and paired comparisons keep their pairs.
    """

    share: float = 1.0
    sample: Mapping[str, float] | None = None
    """A sample drawn beforehand instead (``esr.judging.agreement.stratified_sample``): response key to weight."""

    @classmethod
    def of(cls, settings: JudgeSettings) -> Coverage:
        """The coverage of the judge's settings."""
        return cls(settings.cover_share if settings.cover == "screened" else 1.0)

    @classmethod
    def recorded(cls, record: dict[str, Any]) -> Coverage:
        """The coverage in a judge's record in the store."""
        return cls(cls.of(JudgeSettings(**record["settings"])).share, record.get("sample"))

    @property
    def width(self) -> float:
        """Orders coverages: a drawn sample is narrower than a screen, a screen than everything."""
        return self.share if self.sample is None else 0.0

    def includes(self, other: Coverage) -> bool:
        """Whether ``other`` is no wider. Of two samples the one that adds no response to the other is narrower."""
        if self.sample is not None and other.sample is not None:
            return other.sample.keys() <= self.sample.keys()
        return self.width >= other.width

    def weight(self, place: tuple[str, int, int], prompt: str, response: Response) -> float:
        """How many responses this one stands for: 1 when screened, 1 / share when drawn, 0 when it is not judged.

        place: (direction, prompt_index, seed); the response's id is its key in the store.
        """
        if self.sample is not None:
            return self.sample.get(response.id, 0.0)
        text = response.text
        if self.share >= 1 or find_restarts(text, prompt):
            return 1.0
        drawn = int(content_key("coverage", place)[:13], 16) / 16**13
        return 1 / self.share if drawn < self.share else 0.0
