"""The labelled set that ships, and reading other sets."""

from __future__ import annotations

import json
import unicodedata

import pytest

from esr.errors import UserError
from esr.judging.degraded import is_degraded
from esr.judging.labelled import LabelledAttempt, load_labelled
from esr.judging.records import EXPLICIT_KINDS

SET = load_labelled()


def test_it_covers_what_a_judge_meets():
    assert len(SET) >= 150
    assert len({r.prompt for r in SET}) >= 30
    assert len({r.language for r in SET} - {"mix"}) >= 8
    assert any(r.language == "mix" for r in SET)
    assert {a.kind for r in SET for a in r.attempts[1:]} == EXPLICIT_KINDS | {"pivot", "pretext"}
    categories = {r.category for r in SET}
    assert categories >= {
        "on-topic",
        "off-topic",
        "gradual",
        "look-alike",
        "double",
        "degraded",
        "empty",
        "code-list",
        "hostile",
    }
    assert sum(r.split == "held-out" for r in SET) >= len(SET) * 0.3


def test_rows_are_distinct_and_of_real_length():
    assert len({r.response for r in SET if r.response}) == sum(bool(r.response) for r in SET)
    words = sorted(
        len(r.response.split()) for r in SET if r.language == "en" and r.category not in ("empty", "degraded")
    )
    assert 60 <= words[len(words) // 2] <= 250


def test_attempts_tile_the_response_and_start_on_a_character():
    for row in SET:
        assert row.located
        if row.category == "empty":
            assert not row.attempts
            assert not any(c.isalnum() for c in row.response)
            continue
        assert row.attempts[0].start == 0
        assert row.attempts[0].kind is None
        assert row.attempts[-1].end == len(row.response)
        for before, after in zip(row.attempts, row.attempts[1:], strict=False):
            assert before.end == after.start
            assert after.kind is not None
            assert not row.response[after.start].isspace()


def test_single_attempt_categories_hold_no_restart():
    for row in SET:
        if row.category in ("on-topic", "off-topic", "gradual", "look-alike"):
            assert len(row.attempts) == 1, row.id
        if row.category in EXPLICIT_KINDS | {"pivot", "pretext"}:
            assert [a.kind for a in row.attempts[1:]] == [row.category], row.id
        if row.category == "double":
            assert len(row.attempts) >= 3, row.id


def test_failed_restarts_are_in_the_set():
    failed = [
        r for r in SET for a, b in zip(r.attempts, r.attempts[1:], strict=False) if b.score_high <= a.score_high + 10
    ]
    assert len(failed) >= 5


def test_hostile_rows_hold_what_they_promise():
    text = "".join(r.response for r in SET if r.category == "hostile")
    assert {"Cf", "Cc"} <= {unicodedata.category(c) for c in text}
    for needle in (
        "</response>",
        "```",
        '"attempts"',
        "\u202e",
        "\u200b",
        "\x1b",
        "\x00",
        "<script>",
        "ignore all previous",
    ):
        assert needle in text


def test_exactly_the_degraded_rows_are_degraded():
    assert {r.id for r in SET if is_degraded(r.response)} == {r.id for r in SET if r.category == "degraded"}


def test_the_references_validation_rows_are_read(tmp_path):
    path = tmp_path / "validation.jsonl"
    rows = [
        {"prompt": "p", "response": "a b", "category": "clear", "original_scores": [5, 82], "original_n_attempts": 2},
        {"prompt": "p", "response": "c", "category": "none", "original_scores": [0], "original_n_attempts": 1},
    ]
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    two, one = load_labelled(path)
    assert not two.located
    assert [(a.score_low, a.score_high) for a in two.attempts] == [(0, 20), (67, 97)]
    assert one.attempts == (LabelledAttempt(start=0, end=1, score_low=0, score_high=15),)


def test_the_references_result_file_is_read_and_texts_are_located(tmp_path):
    def trial(response, *attempts):
        return {
            "prompt": "p",
            "response": response,
            "score": {"attempts": [{"attempt_text": t, "score": s} for t, s in attempts]},
        }

    trials = [
        trial("Fish. No. Bread.", (" Fish.", 0), ("No. Bread.\n", 90)),
        trial("Fish. No. Bread.", ("Fish!", 0), ("Bread.", 90)),
        trial("Fish.", ("=response", 3)),
        {"prompt": "p", "response": None, "score": None},
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"results_by_feature": [{"trials": trials}]}, indent=1))
    exact, inexact, whole = load_labelled(path)
    assert [(a.start, a.end) for a in exact.attempts] == [(0, 5), (6, 16)]
    assert not inexact.located
    assert (whole.attempts[0].start, whole.attempts[0].end) == (0, 5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a labelled set has at least one row"),
        ("{", "line 1"),
        ('{"prompt": "p", "response": "r"}', "line 1: KeyError"),
        ('{"prompt": "p", "response": "r", "original_scores": [101]}', "a score lies in 0..100"),
        ('{"prompt": "p", "response": "r", "original_scores": [1], "original_n_attempts": 2}', "n_attempts"),
        ('{"id": "a", "prompt": "p", "category": "c", "language": "en", "split": "dev", '
         '"segments": [{"text": "", "kind": null, "band": [0, 1]}]}', "not empty"),
    ],
)  # fmt: skip
def test_errors_name_the_line(tmp_path, content, message):
    path = tmp_path / "set.jsonl"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        load_labelled(path)
    assert message in str(error.value)
    assert "set.jsonl" in str(error.value)


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="readable UTF-8 file"):
        load_labelled(tmp_path / "none.jsonl")
