"""What the pages say about the code is so."""

from __future__ import annotations

import re
import sqlite3
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if "notebooks" not in p.parts)
WITH_COMMANDS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    from reference import renewed

    text = page.read_text(encoding="utf-8")
    assert renewed(text) == text, "run: python tools/reference.py"


def test_every_setting_is_explained() -> None:
    from reference import experiment_settings, settings

    rows = [line for line in settings() + experiment_settings() if line.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if re.search(r"\|\s*(\([^|]*\))? \|$", row)] == []


def test_every_option_is_explained() -> None:
    from reference import commands

    rows = [line for line in commands() if line.startswith("| `--")]
    assert len(rows) > 60
    assert [row for row in rows if re.search(r"^\| [^|]+\|\s*\|", row)] == []


def test_schema_of_the_study_file(tmp_path: Path) -> None:
    from esr.studies.store import Store

    page = (ROOT / "docs/study-file.md").read_text(encoding="utf-8").split("## The frame of trials")[0]
    told = {
        table: re.findall(r"^\| `(\w+)`", rows, re.MULTILINE)
        for table, rows in re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", page, re.MULTILINE | re.DOTALL)
    }
    with Store.writing(tmp_path):
        pass
    db = sqlite3.connect(tmp_path / "study.sqlite")
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert told == {t: [row[1] for row in db.execute(f"PRAGMA table_info({t})")] for t in tables}


def test_every_experiment_has_its_section() -> None:
    from esr.studies.experiments.registry import experiments

    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## `([\w-]+)`\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    assert [key for key, _ in sections] == list(experiments())
    for key, text in sections:
        assert re.match(r"\n\*.+\?\*\n", text), f"{key} opens with its question"
        for part in ("- **Design.**", "- **Reading it.**", "- **Beware.**"):
            assert part in text, f"{key} has {part}"


def test_exit_codes_are_those_of_the_help() -> None:
    from esr.cli.app import app

    page = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    said = re.search(r"Exit codes: (.*?)\.$", str(app.info.epilog))
    assert said is not None
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == re.findall(r"(?:^|; )(\d+) ", said[1])


def shown_commands(page: Path) -> list[list[str]]:
    """The words of each ``esr`` command in a page's ``sh`` and ``console`` blocks."""
    found = []
    for language, code in re.findall(
        r"^ *```(sh|console)\n(.*?)^ *```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        for line in code.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ").split("#")[0].split() if language == "sh" or "$ " in line else []
            if words[:1] == ["esr"]:
                found.append(words)
    return found


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda p: p.name)
def test_commands_and_options_exist(page: Path) -> None:
    from reference import walk

    from esr.cli.main import app

    known = dict(walk(typer.main.get_command(app), "esr"))
    for words in shown_commands(page):
        name = next((n for n in (" ".join(words[:3]), " ".join(words[:2])) if n in known), None)
        assert name is not None, words
        options = {opt for p in known[name].params for opt in (*p.opts, *p.secondary_opts)}
        assert {word.split("=")[0] for word in words if word.startswith("--")} - options == set(), words


def test_some_commands_are_found() -> None:
    assert sum(len(shown_commands(page)) for page in WITH_COMMANDS) > 25


def test_citation() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["references"][0]["url"].endswith("2602.06941")
