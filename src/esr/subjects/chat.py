"""From a user's prompt to the token ids the model sees."""

from __future__ import annotations

import re
from typing import Any

from esr.errors import UserError
from esr.subjects.spec import SubjectSpec


def chat_ids(subject_or_tokenizer: Any, spec: SubjectSpec, prompt: str) -> tuple[int, ...]:
    """Token ids of one user turn, ready for the model to answer.

    With the tokenizer's template: exactly ``apply_chat_template(messages, add_generation_prompt=True)``,
    which renders start token and headers once. With a template string: ``tokenizer(text)`` with its usual
    special tokens. The prompt is user data, but no tokenizer escapes it: text that spells a special token
    becomes that token.

    Raises UserError for an empty prompt, a tokenizer without a template, or a template that has no place
    for the system prompt.
    """
    tokenizer = getattr(subject_or_tokenizer, "tokenizer", subject_or_tokenizer)
    if not prompt.strip():
        raise UserError("a prompt holds text", repr(prompt))
    ids = (
        _by_tokenizer(tokenizer, spec, prompt) if spec.template == "tokenizer" else _by_string(tokenizer, spec, prompt)
    )
    return tuple(int(i) for i in ids)


def _by_tokenizer(tokenizer: Any, spec: SubjectSpec, prompt: str) -> list[int]:
    if tokenizer.chat_template is None:
        raise UserError(
            f"the tokenizer of {spec.model} has no chat template",
            None,
            'Give one as template, for example "Question: {prompt}\\nAnswer:"',
        )
    messages = [{"role": "user", "content": prompt}]
    if spec.system:
        messages.insert(0, {"role": "system", "content": spec.system})
        _check_system_role(tokenizer, spec, messages)
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids


def _check_system_role(tokenizer: Any, spec: SubjectSpec, messages: list[dict[str, str]]) -> None:
    """Some templates raise on a system message, others leave it out without a word."""
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError:
        text = ""
    if spec.system.strip() not in text:
        raise UserError(
            f"the chat template of {spec.model} has no system role",
            f"system={spec.system!r}",
            "Put its text into the prompts instead, or give a template string with {system}",
        )


def _by_string(tokenizer: Any, spec: SubjectSpec, prompt: str) -> list[int]:
    parts = {"{prompt}": prompt, "{system}": spec.system}
    text = re.sub(r"\{prompt\}|\{system\}", lambda match: parts[match.group()], spec.template)
    ids: list[int] = tokenizer(text)["input_ids"]
    start = tokenizer.bos_token_id
    if start is not None and ids[:2] == [start, start]:
        raise UserError(
            "a template string leaves the start token to the tokenizer, which adds it",
            repr(spec.template),
            f"Remove the leading {tokenizer.bos_token} from it",
        )
    return ids
