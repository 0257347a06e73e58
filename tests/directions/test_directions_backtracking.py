"""Choosing latents by the keywords of their labels."""

from __future__ import annotations

import re
import time

import pytest

from esr.directions.backtracking import EXCLUSIONS, KEYWORDS, READ, Match, backtracking_latents, keyword_matches

FOUND = {
    "The assistant corrects itself after a wrong answer": "self-correction",
    "Self-correcting language": "self-correction",
    "Correcting one\u2019s previous statement": "self-correction",
    "Corrections and clarifications in a dialogue": "self-correction",
    "Expressions of APOLOGY and remorse": "apology",
    "apologise / apologising": "apology",
    "ｓｏｒｒｙ": "apology",
    "Admitting a mistake": "mistake",
    "Oops": "mistake",
    "recognizing that something is wrong": "error",
    "Retracting an earlier claim": "retraction",
    "backtracking in an argument": "backtracking",
    "changing one's mind": "backtracking",
    "having second thoughts": "reconsideration",
    "rephrasing for clarity": "rephrasing",
    "restart phrase: Let": "restart",
    "restarting the explanation": "restart",
    "starting over": "restart",
    "words: Wait, sure": "interruption",
    "the word 'wait' at the start of a sentence": "interruption",
}
LEFT_OUT = {
    "Acknowledging a mistake in the code": "software",
    "apology in an error message": "software",
    "Fixing bugs and mistakes": "software",
    "self-correcting error-correction codes": "software",
    "backtracking algorithms": "software",
    "spelling mistakes": "spelling",
    "Common mistakes to avoid in gardening": "mistakes as a topic",
    "learning from past mistakes": "mistakes as a topic",
    "a sorry state": "other senses",
}
NONE = (
    "The correct answer to the last question",
    "Political correctness",
    "Colour correction in photographs",
    "correctional facilities",
    "waiting lists in hospitals",
    "waiting for a train",
    "restart the computer",
    "error bars",
    "fishing: trout, lure, rod",
    "",
    "\ud800\x00",
)


@pytest.mark.parametrize(("label", "keyword"), FOUND.items())
def test_labels_of_taking_back_are_found(label: str, keyword: str) -> None:
    assert backtracking_latents({3: label}) == {3: keyword}


@pytest.mark.parametrize(("label", "reason"), LEFT_OUT.items())
def test_other_senses_are_left_out_with_their_reason(label: str, reason: str) -> None:
    (match,) = keyword_matches({3: label})
    assert match.excluded_by == reason
    assert backtracking_latents({3: label}) == {}


@pytest.mark.parametrize("label", NONE)
def test_unrelated_labels_have_no_keyword(label: str) -> None:
    assert keyword_matches({3: label}) == ()


def test_every_keyword_and_exclusion_is_exercised() -> None:
    assert set(FOUND.values()) == {name for name, _ in KEYWORDS}
    assert set(LEFT_OUT.values()) == {name for name, _ in EXCLUSIONS}
    for _, pattern in (*KEYWORDS, *EXCLUSIONS):
        re.compile(pattern)


def test_matches_come_by_latent() -> None:
    labels = {9: "sorry", 2: "a mistake in a program", 5: "trout", 1: "an apology"}
    assert keyword_matches(labels) == (
        Match(1, "apology", ""),
        Match(2, "mistake", "software"),
        Match(9, "apology", ""),
    )
    assert list(backtracking_latents(labels)) == [1, 9]


def test_a_hostile_label_takes_no_time() -> None:
    labels = dict(enumerate(("corrects " * 100_000, "a" * 10_000_000, "\ufdfa" * 10_000)))
    start = time.process_time()
    keyword_matches(labels)
    assert time.process_time() - start < 1
    assert keyword_matches({1: "x" * READ + " sorry"}) == ()
