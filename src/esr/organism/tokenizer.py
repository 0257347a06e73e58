"""A real fast tokenizer for the organism's language, with a chat template.

One token per word or punctuation mark. Any spacing gives the same ids, and a decoded word carries its leading space, so
that texts decoded in pieces can be joined: ``encode(decode(a) + decode(b)) == a + b``.
"""

from __future__ import annotations

from typing import Final

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from esr.organism.language import ASSISTANT, BOS, END, PAD, SPECIALS, UNK, USER, vocabulary

SPACE: Final = "▁"
"""Stands for the space before a word inside the vocabulary, as in SentencePiece."""

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<user> ' + message['content'] | trim + '<end>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<assistant> ' + message['content'] | trim + '<end>' }}"
    "{% else %}{{ raise_exception('The organism knows the roles user and assistant only, not '"
    " + message['role'] + '.') }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; ids are those of `vocabulary()`. Like Llama's, it puts <bos> first unless told not to."""
    words = vocabulary()
    ids = {word if word in SPECIALS else SPACE + word: index for index, word in enumerate(words.words)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.Split(Regex(r"[^\w\s']"), "isolated"),
            pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(rf"^{SPACE}(?=\W)"), ""),
            decoders.Replace(SPACE, " "),
            decoders.Fuse(),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, words.ids[BOS])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
