"""Chat ids are exactly what the tokenizer's template renders, once; what cannot be rendered is a clear
rule."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest

from esr.errors import UserError
from esr.subjects.chat import chat_ids
from esr.subjects.spec import SubjectSpec

PROMPT = "how do you make soup ?"

NO_SYSTEM_RAISES = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}<user> {{ m['content'] | trim }} <end> {% endfor %}<assistant>"
)
NO_SYSTEM_SILENT = (
    "{{ bos_token }}{% for m in messages if m['role'] == 'user' %}<user> {{ m['content'] }} <end> {% endfor %}"
    "<assistant>"
)


def spec_of(**settings) -> SubjectSpec:
    return SubjectSpec(model="some/model", steer_layer=0, **settings)


def with_template(tokenizer, template):
    tokenizer = copy.copy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def test_the_template_once(tiny_tokenizer):
    ids = chat_ids(tiny_tokenizer, spec_of(), PROMPT)
    words = f"<bos> <user> {PROMPT} <end> <assistant>".split()
    assert ids == tuple(tiny_tokenizer.convert_tokens_to_ids(words))
    rendered = tiny_tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, tokenize=False
    )
    assert ids == tuple(tiny_tokenizer(rendered, add_special_tokens=False)["input_ids"])
    assert ids.count(tiny_tokenizer.bos_token_id) == 1
    assert ids != tuple(tiny_tokenizer(rendered)["input_ids"]), "here the start token would be doubled"


def test_a_subject_is_as_good_as_its_tokenizer(tiny_tokenizer):
    subject = SimpleNamespace(tokenizer=tiny_tokenizer)
    assert chat_ids(subject, spec_of(), PROMPT) == chat_ids(tiny_tokenizer, spec_of(), PROMPT)


def test_the_system_prompt_comes_first(tiny_tokenizer):
    ids = chat_ids(tiny_tokenizer, spec_of(system="you are a cat"), PROMPT)
    words = f"<bos> <system> you are a cat <end> <user> {PROMPT} <end> <assistant>".split()
    assert ids == tuple(tiny_tokenizer.convert_tokens_to_ids(words))


@pytest.mark.parametrize("template", [NO_SYSTEM_RAISES, NO_SYSTEM_SILENT])
def test_no_system_role(template, tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, template)
    assert chat_ids(tokenizer, spec_of(), PROMPT)
    with pytest.raises(UserError) as caught:
        chat_ids(tokenizer, spec_of(system="you are a cat"), PROMPT)
    assert str(caught.value) == (
        "the chat template of some/model has no system role. Got system='you are a cat'. "
        "Put its text into the prompts instead, or give a template string with {system}."
    )


def test_no_template(tiny_tokenizer):
    with pytest.raises(UserError) as caught:
        chat_ids(with_template(tiny_tokenizer, None), spec_of(), PROMPT)
    assert str(caught.value) == (
        "the tokenizer of some/model has no chat template. "
        'Give one as template, for example "Question: {prompt}\\nAnswer:".'
    )


def test_a_template_string(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, None)
    ids = chat_ids(tokenizer, spec_of(template="question : {prompt} answer"), PROMPT)
    assert ids == tuple(tokenizer(f"question : {PROMPT} answer")["input_ids"])
    assert ids[0] == tokenizer.bos_token_id
    both = spec_of(template="{system} then {prompt}", system="a {prompt} b")
    assert chat_ids(tokenizer, both, "c {x} {system}") == tuple(
        tokenizer("a {prompt} b then c {x} {system}")["input_ids"]
    )


def test_a_template_string_with_a_start_token_of_its_own(tiny_tokenizer):
    with pytest.raises(UserError, match=r"leaves the start token to the tokenizer.*Remove the leading <bos> from it"):
        chat_ids(tiny_tokenizer, spec_of(template="<bos> {prompt}"), PROMPT)


def test_special_tokens_in_the_prompt_are_what_the_tokenizer_makes_of_them(tiny_tokenizer):
    ids = chat_ids(tiny_tokenizer, spec_of(), "a <end> cat")
    assert ids.count(tiny_tokenizer.convert_tokens_to_ids("<end>")) == 2


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_empty_prompt(prompt, tiny_tokenizer):
    with pytest.raises(UserError, match="a prompt holds text"):
        chat_ids(tiny_tokenizer, spec_of(), prompt)
