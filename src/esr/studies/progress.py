"""How far a run is: a live display on a terminal, plain lines elsewhere, or silence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Silent:
    """Says nothing."""

    def start(self, stage: str, total: int) -> None:
        """Ignored."""

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        """Ignored."""

    def end(self) -> None:
        """Ignored."""


class Lines:
    """One line when a stage begins, one every ten seconds, one when it ends."""

    def __init__(self, write: Callable[[str], Any], every: float = 10.0) -> None:
        self._write, self._every = write, every
        self._reset("", 0)

    def _reset(self, stage: str, total: int) -> None:
        self._stage, self._total = stage, total
        self._done = self._tokens = self._unscored = 0
        self._began = self._last = time.monotonic()

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        self._reset(stage, total)

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        """Count, and say so every now and then."""
        self._done += responses
        self._tokens += tokens
        self._unscored += unscored
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._write(self._line())

    def end(self) -> None:
        """A stage is complete."""
        self._write(f"{self._line()} in {time.monotonic() - self._began:.0f} s")

    def _line(self) -> str:
        rate = self._tokens / max(time.monotonic() - self._began, 1e-9)
        of = f" of {self._total}" if self._total else ""
        return f"{self._stage}: {self._done}{of} responses, {rate:.0f} tokens/s, {self._unscored} unscored"


class Live:
    """A rich progress bar per stage."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>12}"), TextColumn("{task.fields[unscored]} unscored"),
            TimeElapsedColumn(), console=console,
        )  # fmt: skip
        self._task: Any = None

    def __enter__(self) -> Live:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, stage: str, total: int) -> None:
        """A new bar."""
        self._tokens = self._unscored = 0
        self._began = time.monotonic()
        self._task = self._bar.add_task(stage, total=total or None, rate="", unscored=0)

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        """Move the bar."""
        self._tokens += tokens
        self._unscored += unscored
        rate = self._tokens / max(time.monotonic() - self._began, 1e-9)
        self._bar.update(self._task, advance=responses, rate=f"{rate:.0f} tok/s", unscored=self._unscored)

    def end(self) -> None:
        """Fill the bar."""
        completed = self._bar.tasks[self._task].completed
        self._bar.update(self._task, total=completed)
