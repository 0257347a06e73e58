"""The background thread in which judges wait for the network."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator


class LoopThread:
    """One event loop in one background thread, shared by the judges of a process while any of them works.

    inspect_ai keeps its connection limits per process and they can only be waited for from one loop. The
    thread is a daemon: a judge that was abandoned half way cannot keep the process from ending.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""
        return self._thread is not None and self._thread.is_alive()

    @contextlib.contextmanager
    def running(self) -> Iterator[asyncio.AbstractEventLoop]:
        """The loop, running; it ends with its last user."""
        with self._lock:
            if self._users == 0:
                self._start()
            self._users += 1
            loop = self._loop
        assert loop is not None
        try:
            yield loop
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0 and not sys.is_finalizing():  # then the thread is gone already
                    self._end()

    def _start(self) -> None:
        ready = threading.Event()

        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            # A provider's client may lose background tasks; asyncio would print their errors, foreign text in them.
            self._loop.set_exception_handler(lambda *_: None)
            ready.set()
            await self._stop.wait()

        def work() -> None:
            with asyncio.Runner() as runner:  # not asyncio.run: inspect_ai replaces that by one that closes no loop
                runner.run(serve())

        self._thread = threading.Thread(target=work, name="esr judge", daemon=True)
        self._thread.start()
        ready.wait()

    def _end(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)
        self._loop = self._stop = self._thread = None


loop_thread = LoopThread()
"""The process's only one."""
