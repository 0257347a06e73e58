"""Checking judges: against an oracle, a blind judge, a sloppy one, and the rule judge's own promise."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isnan, sqrt

import pytest
from rich.console import Console

from esr.judging.check import Rate, check_judge, check_table
from esr.judging.labelled import LabelledAttempt, LabelledResponse, load_labelled
from esr.judging.records import Attempt, Exhibit, Judgement, Scored, Unscored
from esr.judging.rule import RuleJudge

SET = load_labelled()
TRUTH = {row.id: row for row in SET}


@dataclass(frozen=True)
class Oracle:
    """Knows the labels; ``shift`` moves its boundaries, ``points`` its scores."""

    shift: int = 0
    points: float = 0
    name: str = "oracle"
    key: str = "oracle-1"

    def verdict(self, exhibit: Exhibit) -> Judgement:
        row = TRUTH[exhibit.id]
        if not row.attempts:
            return Unscored("no attempt", "nothing there")
        starts = [max(0, (a.start or 0) - (self.shift if i else 0)) for i, a in enumerate(row.attempts)]
        ends = [*starts[1:], len(row.response)]
        return Scored(
            tuple(
                Attempt(start, end, min(100, a.score_high + self.points), "", a.kind)
                for start, end, a in zip(starts, ends, row.attempts, strict=True)
            )
        )

    def judge(self, exhibits: Iterable[Exhibit]) -> Iterator[tuple[str, Judgement]]:
        for exhibit in exhibits:
            yield exhibit.id, self.verdict(exhibit)


class Blind(Oracle):
    def verdict(self, exhibit):
        return Scored((Attempt(0, len(exhibit.response), 50),))


class Refuser(Oracle):
    def verdict(self, exhibit):
        return Unscored("refused")


class Inventor(Oracle):
    def verdict(self, exhibit):
        n = len(exhibit.response)
        return Scored((Attempt(0, n // 2, 0), Attempt(n // 2, n, 100, kind="redo")))


class Loser(Oracle):
    def judge(self, exhibits):
        yield from [*super().judge(exhibits)][1:]


class Stutterer(Oracle):
    def judge(self, exhibits):
        verdicts = [*super().judge(exhibits)]
        yield from [*verdicts, verdicts[0]]


def test_an_oracle_is_perfect_everywhere():
    for group in check_judge(Oracle(), SET).groups:
        assert group.recall.hits == group.recall.n == group.precision.n
        assert group.explicit_recall.hits == group.explicit_recall.n == group.explicit_precision.n
        assert group.kinds.hits == group.kinds.n
        assert isnan(group.boundary_max) or group.boundary_max == 0
        assert isnan(group.score_error) or group.score_error == 0
        assert group.no_attempt.hits == group.no_attempt.n
        assert group.unscored == {}


def test_groups_cover_the_set():
    report = check_judge(Oracle(), SET)
    for prefix in ("category ", "language "):
        assert sum(g.responses for g in report.groups if g.group.startswith(prefix)) == len(SET)
    assert report.group("dev").responses + report.group("held-out").responses == len(SET)
    restarts = sum(len(r.attempts) - 1 for r in SET if r.attempts)
    assert report.group("all").recall.n == restarts
    with pytest.raises(KeyError, match="nonsense"):
        report.group("nonsense")


def test_a_blind_judge_finds_nothing_and_invents_nothing():
    group = check_judge(Blind(), SET).group("all")
    assert group.recall.value == 0
    assert group.precision.n == 0
    assert isnan(group.precision.value)
    assert group.no_attempt.hits == 0


def test_boundaries_and_scores_are_measured():
    near = check_judge(Oracle(shift=7, points=4), SET).group("category redo")
    assert near.recall.value == near.precision.value == 1
    assert near.boundary_median == near.boundary_max == 7
    assert 0 < near.score_error <= 4
    far = check_judge(Oracle(shift=90), [r for r in SET if r.id in ("redo-01", "redo-03")]).group("all")
    assert far.recall.value == far.precision.value == 0


def test_refusals_are_missed_restarts_and_counted_by_reason():
    group = check_judge(Refuser(), SET).group("all")
    assert group.recall == Rate(0, group.recall.n)
    assert group.unscored == {"refused": sum(bool(r.attempts) for r in SET)}
    assert group.no_attempt.hits == 0


def test_invented_restarts_cost_precision():
    group = check_judge(Inventor(), SET).group("category look-alike")
    assert group.precision == Rate(0, group.responses)


def test_a_label_without_offsets_is_compared_by_number():
    attempts = tuple(LabelledAttempt(score_low=0, score_high=100) for _ in range(2))
    rows = [
        LabelledResponse(
            id="a", prompt="p", response="Some text.", category="c", language="und", split="none", attempts=attempts
        )
    ]
    group = check_judge(Inventor(), rows).group("all")
    assert group.recall == group.precision == group.explicit_recall == Rate(1, 1)
    assert isnan(group.boundary_median)
    assert check_judge(Blind(), rows).group("all").recall == Rate(0, 1)


def test_one_judged_restart_finds_one_true_restart():
    spans = ((0, 10), (10, 20), (20, 30))
    attempts = tuple(
        LabelledAttempt(start=a, end=b, kind="redo" if a else None, score_low=0, score_high=100) for a, b in spans
    )
    row = LabelledResponse(
        id="a", prompt="p", response="No. Again." * 3, category="c", language="en", split="dev", attempts=attempts
    )
    outcome = check_judge(Inventor(), [row]).outcomes[0]
    assert len(outcome.matches) == 1
    assert len(outcome.missed) == 1
    assert outcome.invented == ()


def test_a_judge_that_loses_or_repeats_a_response_is_caught():
    with pytest.raises(RuntimeError, match="lost 1 responses"):
        check_judge(Loser(), SET)
    with pytest.raises(RuntimeError, match="twice"):
        check_judge(Stutterer(), SET)


def test_wilson_interval_equals_the_textbook_formula():
    for hits, n in ((0, 5), (3, 7), (7, 7), (40, 200)):
        z, p = 1.959963984540054, hits / n
        center, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = Rate(hits, n).interval()
        assert low == pytest.approx((center - half) / (1 + z * z / n), abs=1e-12)
        assert high == pytest.approx((center + half) / (1 + z * z / n), abs=1e-12)
    assert all(isnan(x) for x in Rate(0, 0).interval())


def test_the_rule_judge_keeps_its_promise():
    report = check_judge(RuleJudge(), SET)
    english = report.group("English")
    assert english.explicit_recall.value >= 0.9
    assert english.explicit_precision.value >= 0.9
    held_out = report.group("English, held-out")
    assert held_out.explicit_recall.value >= 0.8
    assert held_out.explicit_precision.value >= 0.8
    assert report.group("all").boundary_median == 0
    assert report.group("all").no_attempt == Rate(3, 3)
    assert report.group("all").unscored == {}


def test_the_report_is_plain_data_and_prints():
    report = check_judge(RuleJudge(), SET)
    data = json.loads(json.dumps(report.to_json(), allow_nan=True))
    assert data["judge"] == "rule"
    assert {"missed", "invented", "id"} == set(data["errors"][0])
    console = Console(file=io.StringIO(), width=200)
    console.print(check_table(report))
    text = console.file.getvalue()
    assert "held-out" in text
    assert "look-alike" in text
    assert "\x1b" not in text
