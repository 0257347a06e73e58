"""esr show and esr status: what they say, and that no text of a study reaches the terminal as anything but text."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import esr
from esr.judging.records import Attempt, Scored, Unscored
from esr.steering.engine import Response
from esr.studies.store import Store

HOSTILE = "\x1b[31mred\x1b]8;;http://x\x07link\x1b]8;;\x07 \u202eltr\u2066 \ud800 </script> [bold]b[/bold] \r\x00\x9b1m"
DANGEROUS = {"\x1b", "\x07", "\u202e", "\u2066", "\r", "\x00", "\x9b"}


@pytest.fixture
def episode(organism_study: Path) -> Any:
    """A trial that restarted and improved."""
    trials = esr.open(str(organism_study)).trials
    return next(trials[trials["condition"].eq("incidence") & trials["improved"]].itertuples())


@pytest.fixture
def read_trial(organism_study: Path) -> str:
    """Key of an episode whose activations were read."""
    return str(esr.open(str(organism_study)).result("activations")["readings"][0]["trial"])


def test_a_trial_by_the_beginning_of_its_key(call: Any, organism_study: Path, episode: Any) -> None:
    code, out, _ = call("show", organism_study, episode.trial[:14])
    assert code == 0
    flat = " ".join(out.split())
    assert episode.trial in out
    assert f"attempt 1, score {episode.attempts[0].score:.3g}" in flat
    second = episode.attempts[1]
    assert f"attempt 2, {second.kind}, score {second.score:.3g}" in flat
    assert " ".join(second.quote.split()) in flat
    assert f"boost {episode.boost:.4g}" in flat
    assert "multi-attempt, improved" in flat
    for word in (episode.prompt, episode.condition, episode.direction):
        assert word in flat
    data = json.loads(call("show", organism_study, episode.trial, "--json")[1])
    assert data["text"] == episode.text
    assert [a["score"] for a in data["attempts"]] == [a.score for a in episode.attempts]


def test_choosing_and_listing(call: Any, organism_study: Path, episode: Any) -> None:
    trials = esr.open(str(organism_study)).trials
    code, out, _ = call("show", organism_study, "--condition", "incidence")
    assert code == 0
    count = int(trials["condition"].eq("incidence").sum())
    assert (f"The first 20 of {count}" in out) == (count > 20)
    listed = json.loads(call("show", organism_study, "--condition", "incidence", "--json")[1])
    assert len(listed) == count
    one = ("--condition", "incidence", "--direction", episode.direction.removeprefix("latent:"), "--prompt",
           episode.prompt_index)  # fmt: skip
    assert episode.trial in call("show", organism_study, *one)[1]
    for arguments, message in (
        (("0000nothing",), "a trial's key is in the study"),
        (("",), "names one trial"),
        (("--condition", "incidenc"), "Did you mean incidence?"),
        (("--direction", "999999"), "there are trials of this direction"),
        (("--compare", "no-steering"), "for one trial"),
        ((episode.trial, "--compare", "no-steerin"), "Did you mean no-steering?"),
        ((episode.trial, "--latent", "nonsense"), "read"),
    ):
        code, _, error = call("show", organism_study, *arguments)
        assert (code, message in error) == (2, True), (arguments, error)


def test_the_same_cell_under_another_condition(call: Any, organism_study: Path, episode: Any) -> None:
    data = json.loads(call("show", organism_study, episode.trial, "--compare", "no-steering", "--json")[1])
    other = data["compared"]
    assert other["condition"] == "no-steering"
    assert [other[k] for k in ("direction", "prompt_index", "seed")] == [
        data[k] for k in ("direction", "prompt_index", "seed")
    ]
    out = call("show", organism_study, episode.trial, "--compare", "no-steering")[1]
    assert any("condition  incidence" in line and "condition  no-steering" in line for line in out.splitlines())


def test_tokens_are_shaded_by_what_was_read(call: Any, organism_study: Path, read_trial: str) -> None:
    study = esr.open(str(organism_study))
    found = study.result("activations")
    latent = str(found["latents"][0])
    data = json.loads(
        call("show", organism_study, read_trial, "--latent", latent, "--latent", "detectors", "--json")[1]
    )
    with Store.reading(organism_study) as store:
        values = store.readings(found["kind"])[read_trial]
    one, group = data["activations"]
    assert one["values"] == pytest.approx(values[:, 0].tolist(), abs=1e-4)
    columns = [found["latents"].index(i) for i in found["groups"]["detectors"]]
    assert group["values"] == pytest.approx(values[:, columns].mean(1).tolist(), abs=1e-4)
    assert one["ends"][-1] == len(data["text"])
    assert one["ends"] == sorted(one["ends"])
    out = call("show", organism_study, read_trial, "--latent", "detectors")[1]
    assert f"detectors, mean of {len(columns)} latents: highest {max(group['values']):.3g}" in " ".join(out.split())


def test_status_says_the_same_as_run_and_what_waits(call: Any, organism_study: Path) -> None:
    code, out, _ = call("status", organism_study)
    assert code == 0
    study = esr.open(str(organism_study))
    flat = " ".join(out.split())
    for note in study.notes:
        assert " ".join(note.split()) in flat
    assert "Known truth" in flat
    data = json.loads(call("status", organism_study, "--json")[1])
    assert data["standing"]["to_come"] == data["standing"]["waiting"] == 0
    assert data["notes"] == study.notes
    assert all(row["n_unscored"] >= 0 for row in data["summary"])


def test_before_anything_is_stored_the_same_clear_thing_is_said_every_time(
    call: Any, organism_study: Path, tmp_path: Path
) -> None:
    for name in ("study.toml", "prompts.txt"):
        shutil.copy(organism_study / name, tmp_path)
    said = f"Nothing is stored yet. Run it: esr run {tmp_path}\n"
    assert call("status", tmp_path)[:2] == (0, said)
    with Store.writing(tmp_path):  # what a run leaves that was stopped while it loaded
        pass
    assert call("status", tmp_path)[:2] == (0, said)
    assert call("status", tmp_path)[:2] == (0, said)
    assert json.loads(call("status", tmp_path, "--json")[1])["standing"]["begun"] is False
    code, _, error = call("show", tmp_path)
    assert (code, "Run it: esr run" in error) == (2, True)


@pytest.fixture
def hostile(organism_study: Path, tmp_path: Path) -> Path:
    """A study with hostile text in every field that text can be in, a megabyte in one line among it."""
    folder = Path(shutil.copytree(organism_study, tmp_path / "study"))
    study = esr.open(str(folder))
    row = study.trials.iloc[0]
    text = HOSTILE + "x" * 1_000_000
    storable = text.encode("utf-8", "replace").decode()
    connection = sqlite3.connect(folder / "study.sqlite")
    with connection:
        (value,) = connection.execute("SELECT value FROM records WHERE kind = 'selection'").fetchone()
        selection = json.loads(value)
        for chosen in selection["chosen"]:
            chosen["label"] = text
        connection.execute("UPDATE records SET value = ? WHERE kind = 'selection'", (json.dumps(selection),))
        plain = HOSTILE.encode("utf-8", "replace").decode()
        connection.execute("UPDATE trials SET condition = ?, prompt = ? WHERE key = ?", (plain, storable, row["trial"]))
        other = study.trials.iloc[1]
        connection.execute("UPDATE trials SET condition = ? WHERE key = ?", (plain, other["trial"]))
        connection.execute("DELETE FROM responses WHERE key IN (?, ?)", (row["response"], other["response"]))
        connection.execute("DELETE FROM grades WHERE response IN (?, ?)", (row["response"], other["response"]))
    connection.close()
    with Store.writing(folder) as store:
        for key in (row["response"], other["response"]):
            store.add_response(key, Response(key, (1, 2), storable, "stop", 0))
        attempts = (Attempt(0, 20, 10, HOSTILE), Attempt(20, len(storable), 90, HOSTILE, "redo"))
        store.add_grade(row["response"], study.judge_key, Scored(attempts))
        store.add_grade(other["response"], study.judge_key, Unscored("error", HOSTILE))
    return folder


def test_hostile_text_stays_text(call: Any, hostile: Path) -> None:
    trials = esr.open(str(hostile)).trials
    keys = trials.loc[trials["condition"].str.contains("link"), "trial"].tolist()
    assert len(keys) == 2
    for arguments in (
        ("status", hostile), ("show", hostile), *(("show", hostile, key) for key in keys),
        ("show", hostile, "--condition", HOSTILE), ("plan", hostile), ("run", hostile / HOSTILE.replace("\x00", "")),
    ):  # fmt: skip
        _, out, error = call(*arguments)
        shown = out + error
        assert not DANGEROUS & set(shown), arguments
        shown.encode()  # no lone surrogate
        assert len(shown) < 200_000
    for arguments in (("show", hostile, keys[0], "--json"), ("status", hostile, "--json")):
        code, out, _ = call(*arguments)
        assert code == 0
        assert not DANGEROUS & set(out)
        json.loads(out)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_narrow_terminal_cuts_nothing_off(organism_study: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from esr.cli import app

    screen = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    monkeypatch.setattr(app, "console", lambda: screen)
    trials = esr.open(str(organism_study)).trials
    app.print_headline(trials[trials["condition"].isin(["incidence", "no-steering"])])
    shown = " ".join(screen.file.getvalue().split())  # type: ignore[attr-defined]
    for count in ("unscored", "degraded", "directions"):
        assert shown.count(count) >= 2
    app.print_headline(trials)  # many conditions: the compact table
    many = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "unsc." in many
    assert "degr." in many
