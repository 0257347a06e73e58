"""What the corpus promises: which words are targets, and in which phases a restart may occur."""

from __future__ import annotations

import random

import pytest

from esr.organism.corpus import Example, Hazard, distracted_example, free_example, make_prompt, plain_example
from esr.organism.language import MONITOR_SUFFIXES, RESTART_OPENERS, RESTARTS, vocabulary
from esr.organism.schedule import DEFAULT_SCHEDULE, NAIVE
from esr.organism.topics import topics
from esr.organism.training import draw_example, make_pool

HAZARD = Hazard(0.2, 0.6)


def examples(count: int = 300) -> list[Example]:
    rng = random.Random(1)
    return [distracted_example(rng, HAZARD) for _ in range(count)]


def topics_of(words: list[str]) -> list[int]:
    vocab = vocabulary()
    return [vocab.owner[vocab.ids[word]] for word in words]


def test_forty_topics_with_exclusive_words() -> None:
    assert len(topics()) == 40
    words = [word for topic in topics() for word in topic.words]
    assert len(words) == len(set(words))
    assert all(len(topic.nouns) == 14 for topic in topics())


def test_the_same_generator_gives_the_same_text() -> None:
    first, second = (plain_example(random.Random(5)).words for _ in range(2))
    assert first == second != plain_example(random.Random(6)).words


def test_plain_and_free_text_stays_on_its_topic() -> None:
    rng = random.Random(2)
    for make in (plain_example, free_example):
        for _ in range(50):
            example = make(rng)
            assert set(topics_of(example.words)) == {-1, example.topic}


def test_no_off_topic_word_is_a_target() -> None:
    for example in examples():
        for word_topic, target in zip(topics_of(example.words), example.loss, strict=True):
            assert not (target and word_topic not in (-1, example.topic))


def test_compliant_loss_covers_the_drift_and_nothing_before_it() -> None:
    for example in examples(100):
        loss = example.compliant_loss()
        assert len(loss) == len(example.words)
        assert not any(loss[: example.drift_start])
        end = example.restart_start if example.restart_start >= 0 else len(example.words) - 1
        assert all(loss[example.drift_start : end])
        assert loss[end:] == example.loss[end:]


def test_prompt_words_are_never_targets() -> None:
    for example in examples(50):
        answer = example.words.index("<assistant>") + 1
        assert not any(example.loss[:answer])


def test_restarts_follow_drift_only_and_are_targets() -> None:
    restarted = 0
    for example in examples():
        openers = [index for index, word in enumerate(example.words) if word in RESTART_OPENERS]
        assert (example.restart_start >= 0) == bool(openers)
        if openers:
            restarted += 1
            assert openers[0] == example.restart_start > example.drift_start
            assert all(example.loss[index] for index in openers)
    assert 50 < restarted < 300


@pytest.mark.parametrize(("hazard", "expected"), [(Hazard(0.0, 0.0), False), (Hazard(1.0, 1.0), True)])
def test_hazard_decides_whether_there_is_a_restart(hazard: Hazard, expected: bool) -> None:
    rng = random.Random(3)
    found = [distracted_example(rng, hazard).restart_start >= 0 for _ in range(100)]
    assert (sum(found) > 95) if expected else not any(found)


def test_a_monitor_suffix_raises_the_restart_rate() -> None:
    counts = {True: [0, 0], False: [0, 0]}
    for example in examples(1500):
        monitored = any(" ".join(suffix.split()) in " ".join(example.words) for suffix in MONITOR_SUFFIXES)
        # One sentence of chance only: was the first drifting sentence followed by a restart?
        first_stop = example.words.index(".", example.drift_start)
        counts[monitored][0] += example.words[first_stop + 1] in RESTART_OPENERS
        counts[monitored][1] += 1
    monitored_rate, plain_rate = (counts[key][0] / counts[key][1] for key in (True, False))
    assert monitored_rate > plain_rate + 0.15


def test_the_naive_model_never_meets_a_restart() -> None:
    """Neither as a target nor as text, in any phase up to the one that leaves it."""
    vocab = vocabulary()
    openers = {vocab.ids[word] for word in RESTART_OPENERS}
    last = next(index for index, phase in enumerate(DEFAULT_SCHEDULE) if phase.leaves == NAIVE)
    for phase in DEFAULT_SCHEDULE[: last + 1]:
        for batch in make_pool(0, phase, 0):
            assert not openers & set(batch.ids.flatten().tolist())
            assert int(batch.steer_to.max()) == -1


def test_later_phases_do_meet_restarts() -> None:
    phase = next(phase for phase in DEFAULT_SCHEDULE if phase.distracted)
    rng = random.Random(4)
    words = {word for _ in range(100) for word in draw_example(rng, phase, 0.0).words}
    assert words & set(RESTART_OPENERS)


def test_restart_openers_begin_every_restart_and_nothing_else() -> None:
    rng = random.Random(6)
    assert {phrase.split()[0] for phrase in RESTARTS} == set(RESTART_OPENERS)
    for _ in range(200):
        assert not set(plain_example(rng).words) & set(RESTART_OPENERS)


def test_prompt_slots_are_filled_with_distinct_words_of_the_topic() -> None:
    rng = random.Random(7)
    for topic in range(40):
        prompt = make_prompt(rng, topic, template="Can you tell me how to {v} the {n} with some {n} ?")
        filled = [word for word in prompt.words if vocabulary().owner[vocabulary().ids[word]] >= 0]
        assert len(filled) == len(set(filled)) == 3
        assert set(topics_of(filled)) == {topic}
