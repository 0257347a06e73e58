"""The tokenizer is exact in both directions, also for texts that were decoded in pieces."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from esr.organism.corpus import distracted_example, make_prompt
from esr.organism.language import RESTARTS, SPECIALS, as_text, vocabulary
from esr.organism.schedule import LOW
from esr.organism.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """Saved and loaded again, as users get it."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def test_ids_are_those_of_the_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == len(vocabulary().words)
    assert tokenizer.eos_token == "<end>"
    for phrase in RESTARTS:
        assert encode(tokenizer, as_text(phrase.split())) == vocabulary().encode(phrase.split())


def test_any_sequence_of_words_survives_decoding(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    for _ in range(200):
        ids = [rng.randrange(len(SPECIALS), len(tokenizer)) for _ in range(30)]
        cut = rng.randrange(31)
        assert encode(tokenizer, tokenizer.decode(ids)) == ids
        assert encode(tokenizer, tokenizer.decode(ids).strip()) == ids
        assert encode(tokenizer, tokenizer.decode(ids[:cut]) + tokenizer.decode(ids[cut:])) == ids


def test_dialogues_with_special_tokens_survive_too(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(1)
    for _ in range(50):
        ids = vocabulary().encode(distracted_example(rng, LOW).words)
        assert encode(tokenizer, tokenizer.decode(ids)) == ids


def test_decoded_text_reads_naturally(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = vocabulary().encode(RESTARTS[1].split())
    assert tokenizer.decode(ids) == " Wait, that's not right. I went off topic."
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True).endswith("topic.")


def test_unknown_words_become_unk(tokenizer: PreTrainedTokenizerFast) -> None:
    unk = tokenizer.unk_token_id
    known = vocabulary().ids
    assert encode(tokenizer, "knead the blockchain!") == [known["knead"], known["the"], unk, unk]


def test_chat_template_gives_the_ids_of_training(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = make_prompt(random.Random(2), 3)
    chat = [{"role": "user", "content": as_text(prompt.words)}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    expected = vocabulary().encode(["<bos>", "<user>", *prompt.words, "<end>", "<assistant>"])
    assert encode(tokenizer, text) == expected

    words = ["First", ",", "knead", "the", "dough", "."]
    answer = {"role": "assistant", "content": as_text(words)}
    text = tokenizer.apply_chat_template([*chat, answer], tokenize=False)
    assert encode(tokenizer, text) == expected + vocabulary().encode([*words, "<end>"])


def test_bos_comes_first_unless_told_not_to(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("Wait").input_ids == [vocabulary().ids["<bos>"], vocabulary().ids["Wait"]]


def test_a_system_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TemplateError, match="roles user and assistant only, not system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Wait"}], tokenize=False)
