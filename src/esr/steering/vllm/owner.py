"""No process of vLLM outlives the process that started the engine, however that one ends.

vLLM's own processes notice when their engine is closed, but not when the study's process is killed (SIGKILL): they
would hold a GPU's memory for ever. So each worker watches the owner, and when it is gone ends its parent, if that is
vLLM's own engine process, and itself.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

_NAME = "ESR_ENGINE_OWNER"
_EVERY = 1.0  # seconds between looks, where the system has no file descriptors for processes


def claim() -> None:
    """Make this process the owner of the engine processes it starts from now on."""
    os.environ[_NAME] = str(os.getpid())


def follow_owner() -> None:
    """End this process when its owner ends. Does nothing in the owner itself or without one."""
    owner = int(os.environ.get(_NAME, "0"))
    if owner in (0, os.getpid()) or any(t.name == _NAME for t in threading.enumerate()):
        return
    threading.Thread(target=_follow, args=(owner, os.getppid()), name=_NAME, daemon=True).start()


@contextmanager
def shielded() -> Iterator[None]:
    """Processes started inside do not get Ctrl-C, which a terminal sends to all of a command's: vLLM's would end while
    this one lets its requests finish. This one still gets it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # multiprocessing's, which when it starts lifts every such block
    done = threading.Event()
    threading.Thread(target=done.wait, name="takes Ctrl-C", daemon=True).start()  # a thread that does not block it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        done.set()


def _follow(owner: int, parent: int) -> None:
    _wait_for_end(owner)
    if parent != owner and os.getppid() == parent:  # vLLM's engine process, which runs no worker itself
        os.kill(parent, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_end(process: int) -> None:
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # not Linux, or an old one
        while _exists(process):
            time.sleep(_EVERY)
        return
    try:
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
