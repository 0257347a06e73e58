"""Stopping in good order. The first Ctrl-C lets what is in flight finish, for a bounded time; the second stops at once.

Whoever begins new work looks at ``stop.asked`` first: engines before they take a request up, judges before they draw an
exhibit. Outside of ``stop.finishing()`` nothing is in flight, and the first Ctrl-C is a plain ``KeyboardInterrupt``.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE = 60.0
"""Seconds that what is in flight may take after the first Ctrl-C."""


class Stop:
    """Whether somebody asked to stop, and how urgently. Only the main thread is interrupted."""

    def __init__(self) -> None:
        self._inside = 0
        self._asked_at: float | None = None
        self._at_once = False
        self._say: Callable[[], Any] = lambda: None
        self._timer: threading.Timer | None = None
        self._grace = GRACE

    @property
    def asked(self) -> bool:
        """Begin nothing new; finish what is begun."""
        return self._asked_at is not None

    @property
    def at_once(self) -> bool:
        """Do not wait for anything any more."""
        return self._at_once

    @property
    def seconds_left(self) -> float:
        """Of the time that what is in flight may take."""
        return (
            max(0.0, self._grace - (time.monotonic() - self._asked_at)) if self._asked_at is not None else self._grace
        )

    def check(self) -> None:
        """Raises KeyboardInterrupt when somebody asked to stop: what was in flight is finished."""
        if self.asked:
            raise KeyboardInterrupt

    def ask(self) -> None:
        """As the first Ctrl-C, without its limit of time: in a process whose work another one waits for."""
        self._asked_at = time.monotonic()

    def forget(self) -> None:
        """Take ``ask`` back."""
        self._asked_at = None

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Inside, the first Ctrl-C only asks."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @contextmanager
    def listening(self, say: Callable[[], Any], grace: float = GRACE) -> Iterator[None]:
        """Handle Ctrl-C inside; ``say`` is called at the first one, from the signal's handler, so it must be brief.

        Does nothing outside of the main thread, where Python allows no handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._asked_at, self._at_once, self._say, self._grace = None, False, say, grace
        before = signal.signal(signal.SIGINT, self._interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            if self._timer is not None:
                self._timer.cancel()
            self._asked_at, self._at_once, self._timer = None, False, None

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked or not self._inside:
            self._at_once = True
            raise KeyboardInterrupt
        self._asked_at = time.monotonic()
        self._timer = threading.Timer(self._grace, _interrupt_main_thread)
        self._timer.daemon = True
        self._timer.start()
        self._say()


def _interrupt_main_thread() -> None:
    """As a second Ctrl-C would, also where the main thread waits for a lock."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:  # Windows
        signal.raise_signal(signal.SIGINT)


stop = Stop()
"""The process's only one."""
