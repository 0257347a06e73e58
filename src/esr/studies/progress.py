"""How far a run is: a live display on a terminal, plain lines elsewhere, or silence."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from esr.steering.stopping import GRACE, stop

STOPPING = f"Stopping: what is in flight is finished, for {GRACE:.0f} s at most. Ctrl-C again stops at once."
_UPPER = ("calibration",)
"""Stages that may end before their total."""
_PASSES = ("surrogate",)
"""Stages of forward passes, in which nothing is generated or judged."""


class Silent:
    """Says nothing."""

    def start(self, stage: str, total: int) -> None:
        """Ignored."""

    def found(self, responses: int) -> None:
        """Ignored."""

    def produced(self, tokens: int) -> None:
        """Ignored."""

    def queued(self) -> None:
        """Ignored."""

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        """Ignored."""

    def end(self) -> None:
        """Ignored."""


class Pace:
    """What is known of one stage while it runs. ``clock`` gives seconds."""

    def __init__(self, stage: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.stage, self.total, self._clock = stage, total, clock
        self.done = self.now = self.unscored = self.waiting = 0
        self._produced = self._judged = 0
        self._began = clock()
        self._first: tuple[float, int] | None = None
        self._ended: float | None = None

    def found(self, responses: int) -> None:
        """Done before this run."""
        self.done += responses

    def produced(self, tokens: int) -> None:
        """Generated just now."""
        self._produced += tokens

    def queued(self) -> None:
        """Waits for its judge."""
        self.waiting += 1

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        """Done just now."""
        self.done += responses
        self.now += responses
        self.unscored += unscored
        self.waiting = max(0, self.waiting - responses)
        self._judged += tokens
        self._first = self._first or (self._clock(), self.now)

    def end(self) -> None:
        """The stage is complete."""
        self._ended = self._clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began, in this run."""
        return (self._clock() if self._ended is None else self._ended) - self._began

    @property
    def tokens_per_second(self) -> float:
        """Generated in this run."""
        return (self._produced or self._judged) / max(self.elapsed, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """From what was done in this run, nothing else; None while that is too little to tell.

        Responses begin together and end one by one, so at first only the time since the first one ended tells the
        pace; once a quarter is done, all of the stage's time does.
        """
        left = self.total - self.done
        if self._first is None or left < 0 or not self.total:
            return None
        at, by = self._first
        since, more = self._clock() - at, self.now - by
        if 4 * self.now >= self.now + left:
            return left * self.elapsed / self.now
        return left * since / more if more >= 8 and since >= 1 else None

    def counted(self) -> str:
        """``120 of 440 responses``, or forward passes."""
        of = f" of {self.total}" if self.total else ""
        at_most = " at most" if self.total and self.stage in _UPPER else ""
        what = "forward passes" if self.stage in _PASSES else "responses"
        return f"{self.done}{of} {what}{at_most}"

    def facts(self) -> list[str]:
        """Speed, what waits for the judge, unscored, time left: what there is to say."""
        said = []
        if self._produced or self._judged:
            said.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.waiting:
            said.append(f"{self.waiting} wait for the judge")
        if self.stage not in _PASSES:
            said.append(f"{self.unscored} unscored")
        if self._ended is None and (left := self.seconds_left) is not None:
            said.append(f"{'at most ' if self.stage in _UPPER else ''}about {duration(left)} left")
        return said


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 10 min``, ``2 d 4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


class _Counting:
    """Keeps the pace of the stage that runs."""

    def __init__(self) -> None:
        self._pace = Pace("", 0)

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        self._pace = Pace(stage, total)

    def found(self, responses: int) -> None:
        """Done before this run."""
        self._pace.found(responses)

    def produced(self, tokens: int) -> None:
        """Generated just now."""
        self._pace.produced(tokens)

    def queued(self) -> None:
        """Waits for its judge."""
        self._pace.queued()

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        """Done just now."""
        self._pace.advance(responses, tokens, unscored)

    def end(self) -> None:
        """The stage is complete."""
        self._pace.end()


class Lines(_Counting):
    """One line every ten seconds, one when a stage ends."""

    def __init__(self, write: Callable[[str], Any], every: float = 10.0) -> None:
        super().__init__()
        self._write, self._every, self._last = write, every, time.monotonic()

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        super().start(stage, total)
        self._last = time.monotonic()

    def advance(self, responses: int, tokens: int, unscored: int) -> None:
        """Count, and say so every now and then."""
        super().advance(responses, tokens, unscored)
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._write(self._line())

    def end(self) -> None:
        """A stage is complete."""
        super().end()
        self._write(f"{self._line()}, {self._pace.elapsed:.0f} s")

    def stopping(self) -> None:
        """Said from the handler of a signal, where nothing that is being printed may be printed into."""
        os.write(sys.stderr.fileno(), f"{STOPPING}\n".encode())

    def _line(self) -> str:
        pace = self._pace
        return f"{pace.stage}: " + (", ".join([pace.counted(), *pace.facts()]) if pace.done or pace.total else "done")


class Live(_Counting):
    """Every stage on a line of its own, the one that runs with a bar; redrawn four times a second."""

    def __init__(self, console: Any) -> None:
        super().__init__()
        from rich.live import Live as RichLive

        self._past: list[Pace] = []
        self._running = False
        self._live = RichLive(console=console, get_renderable=self._drawn, refresh_per_second=4)

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        super().start(stage, total)
        self._running = True

    def end(self) -> None:
        """A stage is complete."""
        super().end()
        self._past.append(self._pace)
        self._running = False

    def stopping(self) -> None:
        """The next drawing says it."""

    def _drawn(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        from esr.reporting.untrusted import printable

        lines: list[Any] = []
        for pace in self._past:
            what = ", ".join([pace.counted(), *pace.facts()]) if pace.done else "done"
            lines.append(Text(f"{printable(pace.stage):<13} {what}, {duration(pace.elapsed)}", style="dim"))
        if self._running:
            pace = self._pace
            row = Table.grid(padding=(0, 1), expand=True)
            row.add_column(width=13, no_wrap=True)
            row.add_column(ratio=1)
            row.add_column(justify="right", no_wrap=True)
            bar = ProgressBar(total=pace.total or None, completed=min(pace.done, pace.total), pulse=not pace.total)
            counted = pace.counted() if pace.done or pace.total else ""
            row.add_row(Text(printable(pace.stage), style="bold"), bar, Text(counted))
            lines.append(row)
            if pace.done or pace.total:
                lines.append(
                    Text(f"{'':13} {', '.join([*pace.facts(), duration(pace.elapsed) + ' so far'])}", style="dim")
                )
        if stop.asked:
            lines.append(Text(STOPPING, style="bold yellow"))
        return Group(*lines)
