"""From the study's settings to a judge."""

from __future__ import annotations

from esr.judging.records import Judge
from esr.studies.config import StudyConfig


def make_judge(config: StudyConfig) -> Judge:
    """The judge named in study.toml: ``rule``, or a model as inspect_ai names it.

    Raises UserError for an unreadable lexicon, a missing extra, an unknown provider or a missing key.
    """
    if config.judge.name == "rule":
        from esr.judging.lexicon import Lexicon
        from esr.judging.rule import RuleJudge

        path = config.subject.lexicon_path()
        return RuleJudge(None if path is None else Lexicon.load(path))
    from esr.judging.model import ModelJudge

    judge = ModelJudge(config.judge.name)
    judge.preflight()
    return judge
