"""Quotes are found exactly where they stand, or missed in a typed way; never anywhere else."""

from __future__ import annotations

import random
import time

import pytest

from esr.judging.quotes import OutOfOrder, QuoteNotFound, Span, locate, visible

TEXT = "To bake bread, take flour. Wait, that’s not right — let me start over… To bake bread, knead."


def found(quotes: list[str], text: str) -> list[str]:
    spans = locate(quotes, text)
    assert isinstance(spans, tuple), spans
    return [text[s.start : s.end] for s in spans]


def test_exact_quotes_in_order() -> None:
    spans = locate(["To bake bread, take", "Wait, that’s not", "To bake bread, knead."], TEXT)
    assert spans == (Span(0, 19), Span(27, 43), Span(71, 92))


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("wait, that's not right - let", TEXT),  # apostrophe, dash, case
        ("let me start over...", TEXT),
        ('he said "no" twice', "Then he said “no” twice."),
        ("He said 'no'", "Then he said ‘no’ twice."),
        ("one two three", "zero one\n\n  two\u00a0three four"),
        ("one  two\nthree", "zero one two three four"),
        ("straße und mehr", "Die STRASSE und mehr"),
        ("STRASSE UND", "Die Straße und mehr"),
        ("café au lait", "Un cafe\u0301 au lait"),
        ("cafe\u0301 au lait", "Un café au lait"),
        ("zero width here", "a zero\u200b wi\u200ddth\u2060 here b"),
        ("right to left", "from \u202eright to\u202c left"),
        ("zero\u200bwidth", "a zerowidth b"),
        ("ok 👍 go", "ok 👍\ufe0f go"),
        ("  padded words ", "some padded words here"),
        ("10--20 percent", "about 10–20 percent"),
        ("错了，让我重新开始", "之前的回答错了，让我重新开始。"),
        ("İstanbul now", "to İstanbul now"),
    ],
)
def test_normalised_quotes_are_found(quote: str, text: str) -> None:
    assert isinstance(locate([quote], text), tuple)


@pytest.mark.parametrize(
    "quote", ["To bake bread take flour", "To bake the bread", "Wait, that is not", "bake bread [...] flour", "x"]
)
def test_a_changed_word_is_a_miss(quote: str) -> None:
    assert locate([quote], TEXT) == QuoteNotFound(0, quote)


@pytest.mark.parametrize("quote", ["", "   ", "\u200b", "\u202e\n"])
def test_an_empty_quote_is_a_miss(quote: str) -> None:
    assert locate([quote], TEXT) == QuoteNotFound(0, quote)


def test_out_of_order_is_told_from_missing() -> None:
    assert locate(["Wait, that’s", "To bake bread, take"], TEXT) == OutOfOrder(1, "To bake bread, take")
    assert locate(["Wait, that’s", "Never said"], TEXT) == QuoteNotFound(1, "Never said")
    assert locate(["WAIT, THAT'S", "TO BAKE BREAD, TAKE"], TEXT) == OutOfOrder(1, "TO BAKE BREAD, TAKE")
    assert locate(["To bake bread, take", "To bake bread, take"], TEXT) == OutOfOrder(1, "To bake bread, take")


def test_a_repeated_quote_is_the_first_after_the_previous_start() -> None:
    text = "Sorry, no. Sorry, no. Sorry, no."
    assert locate(["Sorry, no."] * 3, text) == (Span(0, 10), Span(11, 21), Span(22, 32))
    assert locate(["Sorry, no. Sorry", "Sorry, no."], text) == (Span(0, 16), Span(11, 21))


def test_exact_occurrence_before_folded() -> None:
    assert locate(["wait, no"], "WAIT, NO! Then wait, no.") == (Span(15, 23),)


def test_offsets_are_those_of_the_original_when_folding_changes_lengths() -> None:
    text = "ﬀ ß\u200b\u200b…  —  İ cafe\u0301 " * 3 + "Oh — “Start” over…  ß end"
    assert found(['oh - "start" over... SS END'], text) == ["Oh — “Start” over…  ß end"]
    assert found(["wi dth"], "a\u200b wi \u200b\u200b dth") == ["wi \u200b\u200b dth"]


def test_invisible_characters_are_not_shown_but_space_is() -> None:
    text = "a\u200bb\u202ec\x00d\ud800e\U000e0041f\tg\nh\u00a0i\x1cj\x1b[31mk"
    assert visible(text) == "abcdef\tg\nh\u00a0i j[31mk"
    assert found(["abcdef g h i j[31mk"], text) == [text]


def test_a_planted_quote_is_found_at_its_place_in_random_text() -> None:
    rng = random.Random(3)
    alphabet = "abcß …—’“\u200b\u00a0\nÉe\u0301İ"
    swaps = {"…": "...", "—": "-", "’": "'", "“": '"', "\u200b": "", "\u00a0": " ", "\n": " ", "É": "é"}
    for _ in range(300):
        before, after = ("".join(rng.choices(alphabet, k=rng.randint(0, 40))) for _ in range(2))
        core = "".join(rng.choices(alphabet, k=12))
        text = before + "Q" + core + "Q" + after
        quote = "q" + "".join(swaps.get(c, c) for c in core) + "Q"
        assert locate([quote], text) == (Span(len(before), len(before) + 14),)


def test_a_megabyte_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        text = "aB— " * (size // 4) + "Wait, I’ll start over"
        begin = time.process_time()
        assert isinstance(locate(["ab- ab-", "AB- AB-", "wait, i'll start"], text), tuple)
        assert isinstance(locate(["nowhere to be seen" * 3], text), QuoteNotFound)
        return time.process_time() - begin

    small, large = seconds(125_000), seconds(1_000_000)
    assert large < 5
    assert large < 8 * small * 3 + 0.2
