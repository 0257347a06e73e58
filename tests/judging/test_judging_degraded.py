"""Collapse into repetition: loops of any period and language are, prose, lists and templates are not."""

from __future__ import annotations

import random

import pytest

from esr.judging.degraded import distinct_shares, is_degraded

PROSE = (
    "Changing a tire takes ten minutes once you have done it a few times. Turn the bicycle over, open the quick "
    "release and lift the wheel out. Push a lever under the bead and slide it around the rim until one side is free. "
    "Pull out the tube, feel inside the casing for glass, and put the new tube in, slightly inflated, valve first."
)
WORDS = ["trout", "lure", "rod", "tackle", "pond", "bass", "salmon", "minnow", "float", "worm", "net", "line", "hook"]

TEMPLATES = [
    "First, {} the {} with the {}.",
    "Make sure the {} is {} before you {} it.",
    "You will need a {} {} and some {}.",
    "A good {} makes it easy to {} the {}.",
]


def templated(seed: int) -> str:
    rng = random.Random(seed)
    sentences = (rng.choice(TEMPLATES).format(*rng.choices(WORDS, k=3)) for _ in range(8))
    return " ".join(sentences)


@pytest.mark.parametrize(
    "loop",
    [
        "good ",
        "good King ",
        "The tomb was sealed and the seal was broken again. ",
        "頂戴結び頂けますか",
        "из: ",
        "la\n",
    ],
)
@pytest.mark.parametrize("lead", ["", PROSE + " "])
def test_loops_are_degraded(loop, lead):
    assert is_degraded(lead + loop * (600 // len(loop)))


def test_counting_lines_that_say_the_same_are_degraded():
    assert is_degraded("\n".join(f"{i}. from:" for i in range(1, 40)))


@pytest.mark.parametrize("seed", range(20))
def test_templated_text_is_not(seed):
    assert not is_degraded(templated(seed))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no no no",
        PROSE,
        "1. Lever\n2. Tube\n3. Pump\n4. Patch",
        "- sugar\n- butter\n- flour\n- eggs\n- salt\n- milk\n- lemon\n- vanilla\n- yeast\n- cream\n- nuts\n- oil",
        "| 1 | 32 |\n| 2 | 35.6 |\n| 3 | 37.4 |\n| 4 | 39.2 |\n| 5 | 41 |\n| 6 | 42.8 |\n| 7 | 44.6 |",
        "先在车门边的标签或说明书上查到标准胎压。测量要在冷胎时进行，也就是停车三小时以后。拧下气门嘴盖，把胎压表垂直按在气门嘴上，读数。"
        "低了就补气，每次少量，再测一遍；高了就按一下气门芯放掉一点。四个轮子和备胎都要检查，每月一次。",
    ],
)
def test_ordinary_text_is_not(text):
    assert not is_degraded(text)


def test_a_repeated_sentence_or_two_is_not_a_collapse():
    assert not is_degraded(PROSE + " Check the valve. Check the valve. Check the valve. " + PROSE[::-1])


def test_shares_agree_with_the_slow_definition_on_a_short_text():
    text = PROSE[:300]
    grams = [text[i : i + 12].lower() for i in range(len(text) - 11)]
    assert distinct_shares(text) == [len(set(grams)) / len(grams)]
    assert distinct_shares("short") == []
