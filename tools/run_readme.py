"""Run what the README shows: every ``sh`` block (but the make targets CI runs by itself) and every ``python`` block.

Blocks of other languages are output, or commands that need a download; they are not run.
Run from the repository's root: python tools/run_readme.py [FILE ...]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each fenced block."""
    return BLOCK.findall(text)


def main(files: list[str]) -> None:
    root = Path.cwd()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name in files:
        with tempfile.TemporaryDirectory() as folder:
            for language, code in blocks((root / name).read_text(encoding="utf-8")):
                if language == "sh" and not code.startswith("make "):
                    command = ["bash", "-euo", "pipefail", "-c", code]
                elif language == "python":
                    command = [sys.executable, "-c", code]
                else:
                    continue
                print(f"--- {name}\n{code.rstrip()}", flush=True)
                subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PATH": path})


if __name__ == "__main__":
    main(sys.argv[1:] or ["README.md"])
