"""Prompt files: what is read, what is refused; and the bundled sets."""

from __future__ import annotations

import re

import pytest

from esr.errors import UserError
from esr.subjects.prompts import how_to_prompts, read_prompts


def test_bundled_sets_are_disjoint_questions():
    used, held_out = how_to_prompts(), how_to_prompts(held_out=True)
    assert (len(used), len(held_out)) == (38, 20)
    assert not set(used) & set(held_out)
    for prompt in used + held_out:
        assert re.fullmatch(r"Explain how to .+\.|How do you .+\?", prompt), prompt
        assert len(prompt) < 80


def test_what_is_read(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeff# ours\n\nWie backt man Brot?\r\n  How? \n#How?\n怎么办？".encode())
    assert read_prompts(file) == ["Wie backt man Brot?", "How?", "怎么办？"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "a file of prompts holds at least one. Got none in "),
        (b"# only\n\n", "a file of prompts holds at least one. Got none in "),
        (b"\xff\xfe\x00", "which is not UTF-8. Save it as plain text in UTF-8."),
        (b"how\x00\x01", "which holds control characters. Save it as plain text in UTF-8."),
        (b"a\nb\n\n a \n", "each prompt of a file stands there once. Got 'a' in lines 1 and 4 of "),
    ],
)
def test_refusals(content, text, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_prompts(file)
    assert text in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"readable UTF-8 text, one prompt per line. Got .*none.txt \(No such file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"readable UTF-8 text, one prompt per line. Got .*\(Is a directory\)"):
        read_prompts(tmp_path)
