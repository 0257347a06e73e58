"""Examples and their file: round trip, and errors that name line and rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from esr.errors import UserError
from esr.finetuning.examples import Example, Segment, read_examples, write_examples


def example(**fields: object) -> Example:
    segments = (Segment(text="Trams run. ", train=False), Segment(text="Wait. Boil it.", train=True))
    return Example.model_validate({"prompt": "How?", "segments": segments} | fields)


def test_a_file_reads_back(tmp_path: Path) -> None:
    examples = [
        example(),
        example(
            segments=(Segment(text="Nur so: 'ä' \n\t\u2028 \U0001f600", train=True),), ends=False, source="ordinary"
        ),
    ]
    write_examples(tmp_path / "x.jsonl", examples)
    assert read_examples(tmp_path / "x.jsonl") == examples
    assert [e.corrects_itself for e in examples] == [True, False]
    assert examples[0].text == "Trams run. Wait. Boil it."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"', "line 2 .*Invalid JSON"),
        ("[]", "line 2 .*"),
        ('{"prompt": "a", "segments": []}', "line 2 .*segment with text that is learned"),
        ('{"prompt": " ", "segments": [{"text": "b", "train": true}]}', "line 2 .*has a prompt"),
        ('{"prompt": "a", "segments": [{"text": "b", "train": false}]}', "line 2 .*that is learned"),
        ('{"prompt": "a", "segments": [{"text": " ", "train": true}]}', "line 2 .*that is learned"),
        ('{"prompt": "a", "segments": [{"text": "", "train": true}]}', r"line 2 .*segments\.0\.text"),
        ('{"prompt": "a", "segments": [{"text": "b", "tran": true}]}', r"line 2 .*segments\.0\.train"),
        ('{"prompt": "a", "segments": [{"text": "b", "train": true}, {"text": "c", "train": false}]}', "last segment"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str, message: str) -> None:
    good = example().model_dump_json()
    (tmp_path / "x.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_examples(tmp_path / "x.jsonl")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can be read"):
        read_examples(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(UserError, match="at least one"):
        read_examples(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe4")
    with pytest.raises(UserError, match="UTF-8"):
        read_examples(tmp_path / "latin.jsonl")


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(ValidationError, match="unicode"):
        example(segments=(Segment(text="\ud800", train=True),))
