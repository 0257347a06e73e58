"""From an example to token ids and labels: what of it is learned, token by token."""

from __future__ import annotations

from dataclasses import dataclass

from esr.errors import UserError
from esr.finetuning.examples import Example
from esr.subjects.chat import chat_ids
from esr.subjects.loading import Subject

IGNORED = -100
"""Label of a token that is not learned (torch's and transformers' convention)."""


@dataclass(frozen=True)
class Encoded:
    """One example as the model sees it; both have shape [tokens]."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    """The token's own id where it is learned, else ``IGNORED``. Not shifted."""

    @property
    def learned(self) -> int:
        """How many tokens are learned."""
        return sum(label != IGNORED for label in self.labels)


class Encoder:
    """Encodes examples for one subject. Raises UserError for a tokenizer without character offsets or end token."""

    def __init__(self, subject: Subject) -> None:
        self._tokenizer, self._spec = subject.tokenizer, subject.spec
        if not getattr(self._tokenizer, "is_fast", False):
            raise UserError(
                "the mask needs a tokenizer that says where tokens stand in the text (a fast one)",
                type(self._tokenizer).__name__,
            )
        self._end = end_of_turn(subject)
        self._special = frozenset(self._tokenizer.all_special_ids)

    def encode(self, example: Example) -> Encoded:
        """Prompt in its chat template (masked), response, and the end token if the example ends.

        The response is encoded as one text by itself, as a generated one follows its prompt. A token is learned when
        every visible character of it lies in learned segments (for a token of blanks: every character), so a token
        that straddles a boundary is masked, and the blank in front of a segment's first word counts for nothing.
        Raises UserError for a text that spells a special token or a word the tokenizer does not know.
        """
        prompt = chat_ids(self._tokenizer, self._spec, example.prompt)
        encoded = self._tokenizer(example.text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = encoded["input_ids"]
        foreign = sorted(self._special.intersection(ids))
        if foreign:
            raise UserError(
                "the text of an example is made of ordinary tokens",
                f"{self._tokenizer.convert_ids_to_tokens(foreign[0])} in {example.text[:80]!r}",
                "Take out what spells a special token, or words that the tokenizer does not know",
            )
        mask = [segment.train for segment in example.segments for _ in segment.text]
        labels = [
            token if _is_learned(example.text, mask, start, end) else IGNORED
            for token, (start, end) in zip(ids, encoded["offset_mapping"], strict=True)
        ]
        if example.ends:
            ids, labels = [*ids, self._end], [*labels, self._end]
        return Encoded((*prompt, *ids), (*(IGNORED for _ in prompt), *labels))


def _is_learned(text: str, mask: list[bool], start: int, end: int) -> bool:
    if start >= end:  # a blank whose offsets the tokenizer trimmed away: it stands between its neighbours
        start, end = max(0, start - 1), min(len(text), start + 1)
    visible = [flag for flag, character in zip(mask[start:end], text[start:end], strict=True) if character.strip()]
    return all(visible or mask[start:end])


def end_of_turn(subject: Subject) -> int:
    """The token that ends a response: of those at which generation stops, the one that the chat template puts after an
    answer, else the tokenizer's end token.

    Raises UserError when there is none.
    """
    tokenizer = subject.tokenizer
    if subject.spec.template == "tokenizer" and tokenizer.chat_template is not None:
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
        asked: list[int] = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
        whole: list[int] = tokenizer.apply_chat_template(messages, return_dict=False)
        for token in whole[len(asked) :]:
            if token in subject.end_ids:
                return int(token)
    if tokenizer.eos_token_id is None:
        raise UserError("a tokenizer has an end token", f"none for {subject.spec.model}")
    return int(tokenizer.eos_token_id)
