"""Examples written by a model, over a loopback server that fails by script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")

from writer_server import WriterServer, form

from esr.errors import UserError
from esr.finetuning import writing
from esr.finetuning.writing import Written, subject_list, write_with_model
from esr.studies.config import JudgeSettings
from esr.studies.progress import Silent

SUBJECTS = ["trams", "bees", "jazz"]
PASSING = {"good": 1, "fenced": 1, "429": 2, "500": 2, "prose": 2, "short": 2, "extra": 2, "number": 2, "surrogate": 2,
           "cut": 2, "no-schema": 2}  # fmt: skip
LASTING = {"500": ("error", 3), "400": ("error", 1), "prose": ("malformed", 2), "filtered": ("refused", 1),
           "stall": ("timeout", 2)}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_API_KEY", "writer0123456789abcdef")
    monkeypatch.setattr(writing, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(writing, "MAX_RETRIES", 2)


def write(server: WriterServer, prompts: list[str], count: int, path: Path, seed: int = 0) -> Written:
    settings = JudgeSettings(name="openai-api/writer/model", base_url=server.url, max_tries=2, timeout=4)
    return write_with_model(settings, prompts, SUBJECTS, count, seed, path, Silent())


def test_every_prompt_gets_subjects_in_turn_once(tmp_path: Path) -> None:
    with WriterServer(lambda prompt, call: "good") as server:
        written = write(server, ["a?", "b?"], 5, tmp_path / "w.jsonl")
    assert [e.prompt for e in written.examples] == ["a?", "b?", "a?", "b?", "a?"]
    assert len({(e.prompt, e.segments[0].text) for e in written.examples}) == 5
    assert (written.usage.calls, written.usage.input_tokens, written.usage.output_tokens) == (5, 500, 250)
    first = written.examples[0]
    made = form("a?", first.origin.rpartition("off-topic: ")[2])
    assert [(s.text, s.train) for s in first.segments] == [
        (made["off_topic"], False), (f" {made['restart']} {made['answer']}", True)
    ]  # fmt: skip
    assert first.source == "judge"
    assert first.ends
    body = server.bodies[0]
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["off_topic", "restart", "answer"]


def test_there_are_no_more_than_pairs(tmp_path: Path) -> None:
    with WriterServer(lambda prompt, call: "good") as server:
        assert len(write(server, ["a?"], 10, tmp_path / "w.jsonl").examples) == 3


def test_passing_faults_are_asked_again(tmp_path: Path) -> None:
    def script(prompt: str, call: int) -> str:
        return prompt.rstrip("?") if call == 0 else "good"

    prompts = [f"{fault}?" for fault in PASSING if fault != "no-schema"]
    with WriterServer(script) as server:
        written = write(server, prompts, len(prompts), tmp_path / "w.jsonl")
    assert len(written.examples) == len(prompts)
    assert {p.rstrip("?"): n for p, n in server.calls.items()} == {f: n for f, n in PASSING.items() if f != "no-schema"}


def test_a_server_without_schemas_is_asked_without(tmp_path: Path) -> None:
    with WriterServer(lambda prompt, call: "no-schema") as server:
        assert len(write(server, ["a?"], 1, tmp_path / "w.jsonl").examples) == 1
    assert "response_format" not in server.bodies[-1]


def test_lasting_faults_are_typed_bounded_and_stored(tmp_path: Path) -> None:
    prompts = [f"{fault}?" for fault in LASTING]
    path = tmp_path / "w.jsonl"
    with WriterServer(lambda prompt, call: prompt.rstrip("?")) as server:
        written = write(server, [*prompts, "good?"], len(prompts) + 1, path)
    assert [e.prompt for e in written.examples] == ["good?"]
    assert written.failures == {"error": 2, "malformed": 1, "refused": 1, "timeout": 1}
    assert {p.rstrip("?"): n for p, n in server.calls.items()} == {f: n for f, (_, n) in LASTING.items()} | {"good": 1}
    assert "writer0123456789abcdef" not in path.read_text()
    with WriterServer(lambda prompt, call: "good") as server:  # a later run: network failures are tried once more
        again = write(server, [*prompts, "good?"], len(prompts) + 1, path)
    assert set(server.calls) == {"500?", "400?", "stall?"}
    assert again.failures == {"malformed": 1, "refused": 1}


def test_what_was_written_is_kept_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    with WriterServer(lambda prompt, call: "good") as server:
        whole = write(server, ["a?", "b?"], 6, path)
    path.write_bytes(path.read_bytes()[:-30])
    with WriterServer(lambda prompt, call: "good") as server:
        again = write(server, ["a?", "b?"], 6, path)
    assert sum(server.calls.values()) == 1
    assert again.examples == whole.examples
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 6


def test_nobody_to_ask_is_said_at_once(tmp_path: Path) -> None:
    with WriterServer(lambda prompt, call: "401") as server, pytest.raises(UserError, match="accepts the key"):
        write(server, ["a?"], 3, tmp_path / "w.jsonl")
    with pytest.raises(UserError, match="written by a language model"):
        write_with_model(JudgeSettings(), ["a?"], SUBJECTS, 3, 0, tmp_path / "w.jsonl", Silent())


def test_subjects_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("trams\nbees\n")
    assert subject_list("s.txt", tmp_path) == ["trams", "bees"]
