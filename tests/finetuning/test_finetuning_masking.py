"""The mask, token by token, against the slow definition on several kinds of tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from esr.errors import UserError
from esr.finetuning.examples import Example, Segment
from esr.finetuning.masking import IGNORED, Encoder, end_of_turn
from esr.subjects.chat import chat_ids
from esr.subjects.loading import Subject

PROMPT = "How do i bake bread?"


def example(*segments: tuple[str, bool], ends: bool = True) -> Example:
    return Example(prompt=PROMPT, segments=tuple(Segment(text=t, train=train) for t, train in segments), ends=ends)


def learned_words(subject: Subject, made: Example) -> tuple[list[str], list[str]]:
    """(tokens learned, tokens of the response masked), as the tokenizer names them."""
    encoded = Encoder(subject).encode(made)
    prompt = chat_ids(subject, subject.spec, made.prompt)
    assert encoded.ids[: len(prompt)] == prompt
    assert set(encoded.labels[: len(prompt)]) == {IGNORED}
    rest = list(zip(encoded.ids, encoded.labels, strict=True))[len(prompt) :]
    assert all(label in (IGNORED, token) for token, label in rest)
    names = subject.tokenizer.convert_ids_to_tokens
    return [names(t) for t, label in rest if label != IGNORED], [names(t) for t, label in rest if label == IGNORED]


def test_off_topic_is_masked_and_the_rest_and_the_end_are_learned(tiny_subject: Callable[..., Subject]) -> None:
    subject = tiny_subject()
    made = example(("the cat and the dog .", False), (" wait , bake bread .", True))
    assert learned_words(subject, made) == (["wait", ",", "bake", "bread", ".", "<end>"],
                                            ["the", "cat", "and", "the", "dog", "."])  # fmt: skip
    assert learned_words(subject, made.model_copy(update={"ends": False}))[0][-1] == "."


def test_several_masked_segments(tiny_subject: Callable[..., Subject]) -> None:
    made = example(("a cat", False), (" wait", True), (" a dog", False), (" bread", True))
    assert learned_words(tiny_subject(), made) == (["wait", "bread", "<end>"], ["a", "cat", "a", "dog"])


def with_tokenizer(subject: Subject, tokenizer: Any) -> Subject:
    tokenizer.chat_template = subject.tokenizer.chat_template
    return replace(subject, tokenizer=tokenizer, end_ids=frozenset({tokenizer.eos_token_id}))


@pytest.fixture(scope="module", params=["trimmed offsets", "whole offsets", "metaspace"])
def merging_subject(request: pytest.FixtureRequest, tiny_subject: Callable[..., Subject]) -> Subject:
    """With a tokenizer that merges: ``. W`` across a boundary, blanks into words, and single characters into bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<unk>", "<user>", "<assistant>", "<end>"]
    text = ["one two. Wait, three! dog.Wait dog.Wait dog.Wait  two\n\nthree "] * 50
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if request.param == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
        tokenizer.decoder = decoders.Metaspace()
        alphabet: list[str] = [chr(i) for i in range(32, 127)] + ["\n"]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=request.param == "trimmed offsets")
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, max_token_length=9, show_progress=False
    )
    tokenizer.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", bos_token="<eos>",
        additional_special_tokens=[AddedToken(t) for t in special[3:]],
    )  # fmt: skip
    return with_tokenizer(tiny_subject(), fast)


TEXT = "one two.Wait, dog.Wait  two\n\nthree \u00e9 dog. Wait, one"


def test_no_token_leaks_over_any_boundary(merging_subject: Subject) -> None:
    """Slow definition: a token is learned exactly when none of its visible characters is masked."""
    tokenizer, encoder = merging_subject.tokenizer, Encoder(merging_subject)
    text = TEXT if tokenizer.decode(tokenizer(TEXT)["input_ids"]).endswith(TEXT) else TEXT.replace("\u00e9", "e")
    prompt = len(chat_ids(merging_subject, merging_subject.spec, PROMPT))
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for boundary in range(1, len(text)):
        encoded = encoder.encode(example((text[:boundary], False), (text[boundary:], True), ends=False))
        for (start, end), label in zip(offsets, encoded.labels[prompt:], strict=True):
            visible = [i for i in range(start, end) if not text[i].isspace()]
            if visible:
                assert (label != IGNORED) == all(i >= boundary for i in visible), (text[start:end], boundary)
            elif start > boundary:
                assert label != IGNORED
            elif end <= boundary and start < boundary:
                assert label == IGNORED


def test_a_straddling_token_is_masked_and_a_leading_blank_counts_for_nothing(merging_subject: Subject) -> None:
    tokenizer = merging_subject.tokenizer
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("dog.Wait", add_special_tokens=False)["input_ids"])
    assert any("." in p and "W" in p for p in pieces), pieces  # the tokenizer really merges over the boundary
    learned, masked = learned_words(merging_subject, example(("one dog.", False), ("Wait", True), ends=False))
    assert not any("." in p for p in learned)
    assert any("." in p and "W" in p for p in masked)
    for first, second in (("one two. ", "Wait, three"), ("one two.", " Wait, three")):
        learned, _ = learned_words(merging_subject, example((first, False), (second, True), ends=False))
        assert "Wait" in "".join(learned)


def test_the_end_is_what_the_template_puts_after_an_answer(tiny_subject: Callable[..., Subject]) -> None:
    subject = tiny_subject()
    ids = subject.tokenizer.convert_tokens_to_ids
    assert end_of_turn(subject) == ids("<end>")
    by_string = replace(subject, spec=subject.spec.model_copy(update={"template": "{prompt} answer:"}))
    assert end_of_turn(by_string) == ids("<eos>")


def test_text_that_spells_a_special_token_is_refused(tiny_subject: Callable[..., Subject]) -> None:
    with pytest.raises(UserError, match=r"ordinary tokens.*<end>"):
        Encoder(tiny_subject()).encode(example(("bread <end> water", True)))
    with pytest.raises(UserError, match=r"ordinary tokens.*<unk>"):
        Encoder(tiny_subject()).encode(example(("zeppelin", True)))


def test_slow_tokenizers_are_refused(tiny_subject: Callable[..., Subject]) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match="where tokens stand"):
        Encoder(replace(tiny_subject(), tokenizer=Slow()))
