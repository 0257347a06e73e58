"""What a person finds by asking: help with an example for every command, exit codes, completion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from esr.cli import main as _registers  # noqa: F401
from esr.cli.app import app

_AS_INSTALLED = """#!/bin/sh
exec "{}" -c "import sys; sys.argv[0] = 'esr'; from esr.cli import main; main()" "$@"
"""


def commands() -> list[list[str]]:
    """Every command, those of groups included."""
    found: list[list[str]] = []

    def walk(group: Any, path: list[str]) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, [*path, name])
            else:
                found.append([*path, name])

    walk(typer.main.get_command(app), [])
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_s_help_has_an_example(call: Any, command: list[str]) -> None:
    code, out, _ = call(*command, "--help")
    assert code == 0
    example = " ".join(out.split()).partition("Example: ")[2]
    assert example.startswith(f"esr {' '.join(command)}")


def test_exit_codes_are_told(call: Any) -> None:
    out = " ".join(call("--help")[1].split())
    for told in ("0 done", "1 not as it should be", "2 a mistake", "130 stopped by Ctrl-C"):
        assert told in out


def test_mistakes_on_the_command_line_exit_with_2(call: Any) -> None:
    for arguments in (("stauts",), ("status",), ("run", "x", "--experimint", "y"), ("plan", "x", "--rate", "z")):
        code, _, error = call(*arguments)
        assert code == 2, arguments
        assert error
    assert "status" in call("stauts")[2]  # the nearest name


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_completion_works_in_bash(tmp_path: Path) -> None:
    """The script that --show-completion prints, sourced; then what TAB would offer."""
    (tmp_path / "esr").write_text(_AS_INSTALLED.format(sys.executable))
    (tmp_path / "esr").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = subprocess.run(
        ["esr", "--show-completion", "bash"], env=env, capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / "completion.sh").write_text(script)

    def offered(*words: str) -> list[str]:
        line = " ".join(words)
        code = (
            f"source {tmp_path / 'completion.sh'}; COMP_LINE='{line}'; COMP_POINT={len(line)};"
            f" COMP_WORDS=({line}); [[ '{line}' == *' ' ]] && COMP_WORDS+=('');"
            ' COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); fn=$(complete -p esr | sed -E "s/.*-F ([^ ]+).*/\\1/");'
            ' $fn esr; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        out = subprocess.run(["bash", "-c", code], env=env, capture_output=True, text=True)
        assert out.returncode == 0, out.stderr
        return out.stdout.split()

    assert {"show", "subjects", "status"} & set(offered("esr", "s")) == {"show", "subjects", "status"}
    assert "--experiment" in offered("esr", "run", "--ex")
