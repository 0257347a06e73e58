"""The columns the documentation names are those of a real study."""

import re
from pathlib import Path

import esr

ROOT = Path(__file__).parents[2]


def test_columns_of_the_frame_of_trials(organism_study: Path) -> None:
    page = (ROOT / "docs/study-file.md").read_text(encoding="utf-8").split("## The frame of trials")[1]
    told = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    assert sorted(told) == sorted(esr.open(str(organism_study)).trials.columns)
