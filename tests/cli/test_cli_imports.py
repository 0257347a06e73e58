"""The command line starts fast: help and a bare import load neither torch nor the other heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sae_lens", "inspect_ai", "pandas", "matplotlib", "scipy")


def loaded(code: str) -> set[str]:
    """Which heavy libraries a fresh process has loaded after running ``code``."""
    script = f"{code}\nimport sys\nprint('loaded', *(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return set(out.stderr.strip().splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "code",
    [
        "import esr",
        "import esr.cli.main",
        "import sys; sys.argv = ['esr', '--help']\nfrom esr.cli import main\ntry: main()\nexcept SystemExit: pass",
        "import esr.judging.model, esr.judging.rule, esr.studies.conditions, esr.steering.engine",
    ],
)
def test_light(code: str) -> None:
    assert not loaded(code)


def test_the_test_can_fail() -> None:
    assert "torch" in loaded("import esr; esr.load_subject")
