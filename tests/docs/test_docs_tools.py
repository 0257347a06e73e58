"""The tools that check the documentation see what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small repository whose documentation is in order."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "src/esr/steering").mkdir(parents=True)
    (tmp_path / "README.md").write_text("[one](docs/one.md#a-b)\n\n```text\nsrc/esr/\nsteering/   what\n```\n")
    (docs / "one.md").write_text("# One\n\n## `A` b?\n\n[two](two.md) [self](#a-b) [out](https://example.org/)\n")
    (docs / "two.md").write_text("# Two\n\n```text\n[no](link.md)\n```\n")
    (tmp_path / "zensical.toml").write_text('[project]\nnav = [{ "A" = "one.md" }, { "B" = [{ "C" = "two.md" }] }]\n')
    return tmp_path


def test_a_tree_in_order(tree: Path) -> None:
    from check_docs import problems

    assert problems(tree) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("docs/one.md", "two.md", "three.md", "broken link three.md"),
        ("docs/one.md", "(#a-b)", "(#b)", "broken link #b"),
        ("README.md", "#a-b", "#c", "broken link docs/one.md#c"),
        ("docs/one.md", "(two.md)", "(../README.md)", "broken link ../README.md"),
        ("zensical.toml", '{ "A" = "one.md" }, ', "", "one.md is not in the navigation"),
        ("zensical.toml", '"one.md"', '"none.md"', "none.md, which does not exist"),
        ("README.md", "steering/", "stearing/", "stearing/ does not exist"),
    ],
)
def test_what_is_wrong_is_named(tree: Path, file: str, old: str, new: str, said: str) -> None:
    from check_docs import problems

    text = (tree / file).read_text()
    assert old in text
    (tree / file).write_text(text.replace(old, new))
    assert any(said in problem for problem in problems(tree))


@pytest.mark.parametrize(
    ("html", "wrong"),
    [
        ('<a href="https://example.org/">x</a><img src="a.png"><link rel="canonical" href="https://e.org/">', False),
        ('<img src="data:image/png;base64,AA==">', False),
        ('<script src="https://unpkg.com/x"></script>', True),
        ('<link rel="stylesheet" href="https://fonts.example.org/css">', True),
        ('<img src="b.png">', True),
        ("<style>@import '//example.org/a.css';</style>", True),
        ("<style>p { background: url(https://example.org/a.png) }</style>", True),
    ],
)
def test_a_site_that_fetches_is_refused(tmp_path: Path, html: str, wrong: bool) -> None:
    from check_site import problems

    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(f"<html>{html}</html>")
    assert bool(problems(tmp_path)) == wrong


def test_an_empty_site_is_refused(tmp_path: Path) -> None:
    from check_site import problems

    assert problems(tmp_path)


def test_blocks_run_in_order_with_what_they_need(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("<!-- needs: b.md -->\n\n```sh\ncat made\n```\n\n```console\n$ false\n```\n")
    (docs / "b.md").write_text("```sh\nmake nothing\n```\n\n```python\nopen('made', 'w').write('by b')\n```\n")
    tool = Path(__file__).parents[2] / "tools/run_readme.py"
    run = [sys.executable, str(tool), "docs/a.md"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "by b" in done.stdout
    (docs / "b.md").write_text("```sh\ntrue\n```\n")
    failed = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "failed" in failed.stderr
