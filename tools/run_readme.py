"""Run what the README and the documentation show: every ``sh`` block (but the make targets CI runs by itself) and every
``python`` block, each in a process of its own.

Blocks of other languages are output, or commands that need a download; they are not run. The README has a scratch
folder to itself; the pages share one, so that one page can go on with the study of another: it then says so in a
comment, ``<!-- needs: start.md -->``, and that page is run before it.
Run from the repository's root: python tools/run_readme.py [FILE ...]     (default: the README and every page)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"^<!-- needs: (\S+) -->$", re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each fenced block at the left margin."""
    return BLOCK.findall(text)


def commands(text: str) -> list[tuple[list[str], str]]:
    """(command line, code) of each block that is run."""
    found = []
    for language, code in blocks(text):
        if language == "sh" and not code.startswith("make "):
            found.append((["bash", "-euo", "pipefail", "-c", code], code))
        elif language == "python":
            found.append(([sys.executable, "-c", code], code))
    return found


def in_order(pages: list[Path]) -> list[Path]:
    """The pages and those they need, each after its needs."""
    done: dict[Path, None] = {}

    def add(page: Path) -> None:
        for need in NEEDS.findall(page.read_text(encoding="utf-8")):
            add(page.parent / need)
        done.setdefault(page)

    for page in pages:
        add(page)
    return list(done)


def run(page: Path, folder: str) -> None:
    """Run a page's blocks in a folder; the first that fails ends the whole."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    begun = time.monotonic()
    for command, code in commands(page.read_text(encoding="utf-8")):
        print(f"--- {page}\n{code.rstrip()}", flush=True)
        subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PATH": path})
    print(f"--- {page}: {time.monotonic() - begun:.0f} s", flush=True)


def main(files: list[str]) -> None:
    readme = Path("README.md")
    pages = [page for page in sorted(Path("docs").rglob("*.md")) if page.parent != Path("docs/notebooks")]
    wanted = [Path(name) for name in files] or [readme, *pages]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of a model this small wait for each other
    if readme in wanted:
        with tempfile.TemporaryDirectory() as folder:
            run(readme, folder)
    with tempfile.TemporaryDirectory() as folder:
        for page in in_order([page for page in wanted if page != readme]):
            run(page, folder)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed with {error.returncode}")
