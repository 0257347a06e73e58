"""What is said while a run goes on: counts, speed, the judge's queue, and a time left one can believe."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from esr.studies.progress import Lines, Live, Pace, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def simulated(batch: int, seconds: float, total: int, found: int = 0) -> list[tuple[float, float]]:
    """(what was said to be left, what really was) along a stage in which ``batch`` responses begin together and end
    spread over the second half of ``seconds``."""
    clock = Clock()
    pace = Pace("trials", total, clock)
    pace.found(found)
    ends = []
    for first in range(found, total, batch):
        size = min(batch, total - first)
        began = (first - found) // batch * seconds
        ends += [began + seconds * (0.5 + 0.5 * (i + 1) / size) for i in range(size)]
    said = []
    for end in ends:
        clock.now = 100.0 + end
        pace.queued()
        pace.produced(50)
        pace.advance(1, 50, 0)
        if (left := pace.seconds_left) is not None:
            said.append((left, ends[-1] - end))
    return said


@pytest.mark.parametrize(("batch", "total", "found"), [(240, 440, 0), (64, 2000, 0), (64, 2000, 1000), (16, 5000, 0)])
def test_the_time_left_is_within_a_factor_of_three_from_the_first(batch: int, total: int, found: int) -> None:
    said = simulated(batch, 20.0, total, found)
    early = [(left, real) for left, real in said if real > 25]
    assert early
    for left, real in early:
        assert real / 3 <= left <= real * 3
    half = [(left, real) for left, real in said if real > 25][len(early) // 2 :]
    assert max(max(left / real, real / left) for left, real in half) < 2


def test_nothing_is_said_before_there_is_a_pace() -> None:
    clock = Clock()
    pace = Pace("trials", 100, clock)
    pace.found(90)  # from an earlier run: tells nothing about this one
    clock.now += 30
    assert pace.seconds_left is None
    pace.advance(1, 10, 0)
    clock.now += 3
    assert pace.seconds_left is None
    assert Pace("loading", 0, clock).seconds_left is None


def test_the_judge_s_queue_is_what_was_produced_and_not_judged() -> None:
    pace = Pace("trials", 10)
    for _ in range(5):
        pace.produced(7)
        pace.queued()
    pace.advance(1, 7, 1)
    assert pace.waiting == 4
    assert "4 wait for the judge" in pace.facts()
    assert "1 unscored" in pace.facts()
    assert pace.counted() == "1 of 10 responses"


def test_durations() -> None:
    assert [duration(s) for s in (0, 42.4, 89, 600, 3 * 3600 + 600, 52 * 3600)] == [
        "0 s", "42 s", "89 s", "10 min", "3 h 10 min", "2 d 4 h",
    ]  # fmt: skip


def test_lines_are_plain() -> None:
    said: list[str] = []
    lines = Lines(said.append, every=0)
    lines.start("loading", 0)
    lines.end()
    lines.start("trials", 3)
    lines.found(1)
    lines.queued()
    lines.produced(9)
    lines.advance(1, 9, 1)
    lines.end()
    assert said[0] == "loading: done, 0 s"
    assert re.fullmatch(r"trials: 2 of 3 responses, [\d,]+ tokens/s, 1 unscored(, about .* left)?", said[1])
    assert said[-1].startswith("trials: 2 of 3 responses, ")


def test_the_live_display_shows_every_stage() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with Live(console) as live:
        live.start("loading", 0)
        live.end()
        live.start("\x1b[31mtrials", 4)
        for _ in range(2):
            live.produced(5)
            live.queued()
        live.advance(1, 5, 0)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "loading       done, 0 s" in shown
    assert "1 of 4 responses" in shown
    assert "1 wait for the judge, 0 unscored" in shown
    assert "\x1b[31m" not in shown


def test_the_surrogate_s_passes_are_no_responses_and_have_no_verdicts() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.start("surrogate", 960)
    lines.advance(960, 0, 0)
    lines.end()
    assert re.fullmatch(r"surrogate: 960 of 960 forward passes, 0 s", said[-1])
