"""What examples are made of a study's responses."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from finetuning_frames import frame, trial

from esr.errors import UserError
from esr.finetuning.examples import Example, Segment
from esr.finetuning.mix import mix
from esr.finetuning.sources import (
    constructed,
    cuts,
    episodes,
    ordinary_answers,
    restart_list,
    shuffled,
    split_prompts,
)
from esr.finetuning.writing import subject_list
from esr.judging.records import EXPLICIT_KINDS
from esr.judging.screen import find_restarts
from esr.subjects.spec import SubjectSpec


def segments(example: Example) -> list[tuple[str, bool]]:
    return [(s.text, s.train) for s in example.segments]


def test_an_episode_is_cut_where_the_judge_saw_the_restart() -> None:
    rows = frame(
        trial("incidence", "a?", "Trams. |Wait. Boil.", [10, 90]),
        trial("incidence", "b?", "One. |No. Worse.|Sorry. Good.|Wait. Bad. |Hm. Fine.", [30, 20, 80, 30, 70]),
        trial("incidence", "c?", "Long. |Wait. Cut o", [0, 60], finish="length"),
    )
    found = {e.prompt: e for e in episodes(rows, {"a?", "b?", "c?"}, seed=0)}
    assert segments(found["a?"]) == [("Trams. ", False), ("Wait. Boil.", True)]
    assert segments(found["b?"]) == [
        ("One. No. Worse.", False), ("Sorry. Good.", True), ("Wait. Bad. ", False), ("Hm. Fine.", True)
    ]  # fmt: skip
    assert [found[p].ends for p in ("a?", "b?", "c?")] == [True, True, False]
    assert {e.source for e in found.values()} == {"study"}


def test_only_improved_sound_responses_to_wanted_prompts_are_episodes() -> None:
    rows = frame(
        trial("incidence", "a?", "Trams. |Wait. Trams.", [40, 40]),
        trial("incidence", "a?", "Trams. |Wait. Worse.", [40, 10]),
        trial("incidence", "a?", "Boil it.", [90]),
        trial("incidence", "a?", "Trams. |Wait. Boil.", [10, 90], degraded=True),
        trial("forced-restart", "a?", "Trams. |Wait. Boil.", [10, 90], prefix_tokens=3),
        trial("incidence", "held out?", "Trams. |Wait. Boil.", [10, 90]),
        trial("incidence", "a?", "?", []),
    )
    assert episodes(rows, {"a?"}, seed=0) == []


def test_ordinary_answers_are_sound_unsteered_distinct_and_good() -> None:
    rows = frame(
        trial("no-steering", "a?", "Boil it.", [90]),
        trial("no-steering", "a?", "Boil it.", [90], seed=2, trial="again"),
        trial("no-steering", "a?", "Bad.", [10]),
        trial("no-steering", "a?", "Trams. |Wait. Boil.", [10, 90]),
        trial("no-steering", "a?", "Loop loop.", [90], degraded=True),
        trial("no-steering", "b?", "Cut", [90], finish="length"),
        trial("no-steering", "held out?", "Boil it.", [90]),
        trial("no-steering", "a?", "?", []),
        trial("incidence", "a?", "Steered.", [90]),
    )
    found = ordinary_answers(rows, {"a?", "b?"}, at_least=50)
    assert [(e.prompt, e.text, e.ends) for e in found] == [("a?", "Boil it.", True), ("b?", "Cut", False)]
    assert not any(e.corrects_itself for e in found)


STEERED = frame(
    trial("incidence", "a?", "Trams run. They stop. They go on. They end.", [10]),
    trial("incidence", "a?", "On topic, too good.", [31]),
    trial("incidence", "a?", "Trams. |Wait. Boil.", [10, 90]),
    trial("no-steering", "a?", "Unsteered and bad.", [0]),
    trial("matched-prefix", "a?", "Not its own. Words here. And there. So.", [0], prefix_tokens=3),
)


def answers() -> list[Example]:
    return [
        Example(prompt=p, segments=(Segment(text=t, train=True),), source="ordinary", ends=e)
        for p, t, e in (
            ("a?", "Boil the egg.", True),
            ("a?", " Heat it.", False),
            ("b?", "Dig a hole. Plant it.", True),
        )
    ]


def spliced(count: int = 60, seed: int = 3) -> list[Example]:
    return constructed(
        STEERED, answers(), ["a?", "b?", "none?"], ["Wait, no.", "Sorry."], at_most=30, count=count, seed=seed
    )


def test_splices_have_a_masked_start_a_restart_and_an_ordinary_answer() -> None:
    made = spliced()
    assert {p: sum(e.prompt == p for e in made) for p in ("a?", "b?")} == {"a?": 30, "b?": 30}
    starts, kinds = set(), set()
    for example in made:
        (start, masked), (rest, learned) = segments(example)
        assert (masked, learned) == (False, True)
        match = re.fullmatch(r" (Wait, no\.|Sorry\.) (.*)", rest)
        assert match
        assert (example.ends, match[2]) in {"a?": {(True, "Boil the egg."), (False, "Heat it.")},
                                            "b?": {(True, "Dig a hole. Plant it.")}}[example.prompt]  # fmt: skip
        starts.add((example.prompt, start))
        kinds.add(match[1])
    assert kinds == {"Wait, no.", "Sorry."}
    assert {s for p, s in starts if p == "a?"} == {"Trams run.", "Trams run. They stop."}  # not in the last quarter
    # b? has no steered response: from answers to another prompt
    assert {s for p, s in starts if p == "b?"} == {"Boil", "Boil the", " Heat"}


def test_splices_are_a_function_of_seed_and_number() -> None:
    assert spliced(10) == spliced(60)[:10]
    assert spliced(10) != spliced(10, seed=4)
    shuffled_rows = STEERED.sample(frac=1, random_state=1)
    again = constructed(
        shuffled_rows, answers(), ["a?", "b?", "none?"], ["Wait, no.", "Sorry."], at_most=30, count=60, seed=3
    )
    assert again == spliced()


def test_line_breaks_stand_around_restarts_of_texts_that_have_them() -> None:
    rows = frame(trial("incidence", "a?", "Trams\nrun\nfar\naway\nnow", [0]))
    answer = Example(prompt="a?", segments=(Segment(text="One.\n\nTwo.", train=True),))
    texts = {e.text for e in constructed(rows, [answer], ["a?"], ["No."], at_most=30, count=40, seed=0)}
    assert any("\n\nNo.\n\nOne." in t for t in texts)
    assert any(" No. One." in t for t in texts)


def test_nothing_to_splice_says_why() -> None:
    with pytest.raises(UserError, match="ordinary answer"):
        constructed(STEERED, [], ["a?"], ["No."], at_most=30, count=1, seed=0)
    with pytest.raises(UserError, match="opens with off-topic"):
        constructed(STEERED, answers()[:1], ["a?"], ["No."], at_most=5, count=1, seed=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four.", [4, 9, 16]),
        ("\u4e00\u4e8c\u3002\u4e09\u56db\u3002\u4e94\u516d\u3002", [3, 6]),
        ("no sentence here", [2, 11]),
        ("word", [4]),
        ("1.5 kg of 2.5. x", [3, 6, 9]),
    ],
)
def test_cuts(text: str, expected: list[int]) -> None:
    assert cuts(text) == expected


def test_held_out_prompts_are_a_seeded_split() -> None:
    prompts = [f"p{i}" for i in range(10)]
    train, held = split_prompts(prompts, 0.2, seed=1)
    assert len(held) == 2
    assert sorted(train + held) == prompts
    assert (train, held) == split_prompts(prompts, 0.2, seed=1)
    assert {tuple(split_prompts(prompts, 0.2, seed=s)[1]) for s in range(9)} != {tuple(held)}
    assert [len(part) for part in split_prompts(prompts[:2], 0.01, 0)] == [1, 1]
    assert [len(part) for part in split_prompts(prompts[:2], 0.99, 0)] == [1, 1]
    with pytest.raises(UserError, match="at least two"):
        split_prompts(["a"], 0.2, 0)


def test_the_bundled_phrases_are_explicit_restarts() -> None:
    before, after = "The tram leaves platform four at nine. It is red. ", " Lower the egg into boiling water and wait."
    phrases = restart_list(None, Path(), SubjectSpec(model="x", steer_layer=0))
    assert len(phrases) == 30
    for phrase in phrases:
        marks = find_restarts(before + phrase + after, "How do I boil an egg?")
        assert [m.start for m in marks] == [len(before)], phrase
        assert marks[0].kind in EXPLICIT_KINDS


def test_phrases_of_a_file_and_of_a_lexicon(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("No.\nWait.\n")
    organism = SubjectSpec(model="organism-naive", steer_layer=1, lexicon="<packaged>/lexicon.json")
    assert restart_list("r.txt", tmp_path, organism) == ["No.", "Wait."]
    assert len(restart_list(None, tmp_path, organism)) == 6
    with pytest.raises(UserError):
        restart_list("missing.txt", tmp_path, organism)


def test_fifty_subjects_are_bundled() -> None:
    assert len(set(subject_list(None, Path()))) == 50
    assert (files("esr.finetuning") / "data" / "subjects.txt").is_file()


def pool(name: str, n: int) -> list[Example]:
    return [Example(prompt=f"{name}{i}?", segments=(Segment(text="x", train=True),), source=name) for i in range(n)]


def test_a_mix_has_the_share_and_always_the_same_size() -> None:
    wrong, right = pool("wrong", 200), pool("right", 200)
    before: set[str] = set()
    for share in (0, 10, 25, 90, 100):
        mixed = mix(wrong, right, share, 101, seed=0)
        own = {e.prompt for e in mixed.examples if e.source == "wrong"}
        assert len(mixed.examples) == mixed.self_correction + mixed.ordinary == 101
        assert len(own) == mixed.self_correction == mixed.self_correction_distinct == round(1.01 * share)
        assert before <= own  # larger shares hold the smaller ones'
        before = own
    assert mix(wrong, right, 25, 101, 0) == mix(wrong, right, 25, 101, 0) != mix(wrong, right, 25, 101, 1)
    order = [e.source for e in mix(wrong, right, 50, 100, 0).examples]
    assert 30 < np.abs(np.diff([s == "wrong" for s in order])).sum() < 70  # mixed, not one after the other


def test_small_pools_are_gone_through_again_and_that_is_counted() -> None:
    mixed = mix(pool("wrong", 3), pool("right", 2), 70, 10, seed=0)
    assert mixed.counts == {
        "self_correction": 7, "self_correction_distinct": 3, "ordinary": 3, "ordinary_distinct": 2
    }  # fmt: skip
    with pytest.raises(UserError, match="needs ordinary examples"):
        mix(pool("wrong", 3), [], 70, 10, seed=0)
    assert mix(pool("wrong", 3), [], 100, 10, seed=0).ordinary == 0


def test_a_shuffled_pool_covers_the_prompts_evenly() -> None:
    examples = [
        Example(prompt=p, segments=(Segment(text=str(i), train=True),))
        for p, n in (("a", 50), ("b", 3))
        for i in range(n)
    ]
    mixed = shuffled(examples, 0)
    assert sorted(e.text for e in mixed) == sorted(e.text for e in examples)
    assert sorted(e.prompt for e in mixed[:6]) == ["a"] * 3 + ["b"] * 3
    assert mixed == shuffled(examples, 0) != shuffled(examples, 1)
