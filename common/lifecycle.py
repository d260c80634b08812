"""How a process of a run starts, is told to stop, and dies with its parent.

SIGTERM or SIGINT asks to drain: stop reading, finish or hand back, leave (exit code 0). A second signal, or a
deadline, leaves at once (exit code 130): what is held then is as safe as with a process that is killed.
SIGKILL of the parent kills the child: no orphans.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

LEFT_AT_ONCE = 130
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent dies (Linux). For `preexec_fn` and for children.

    The signal follows the parent's *thread*: start children from one that lives as long as the process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def computing_environment(threads: int) -> dict[str, str]:
    """Our environment, for a process with so many OpenMP threads.

    Passive: two OpenMP pools that spin while they wait slow a step from 0.1 s to 10 s on two cores.
    """
    return os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def stop_on_signals(drain_s: float | None = None, stop: threading.Event | None = None) -> threading.Event:
    """An event, `stop` if given, that SIGTERM or SIGINT sets. The second signal ends the process at once, and so do
    `drain_s` seconds."""
    stop = stop or threading.Event()

    asked = False

    def drain() -> None:
        stop.set()
        if drain_s is not None:
            time.sleep(drain_s)
            os.write(2, f"not drained within {drain_s:g} s: left at once\n".encode())
            os._exit(LEFT_AT_ONCE)

    def on_signal(signum: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:  # by a signal: `stop` may be set by another rank
            os._exit(LEFT_AT_ONCE)
        asked = True
        # In another thread: this one may be in the middle of `stop.wait`, and hold the lock that `set` takes.
        _thread.start_new_thread(drain, ())

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


class Every:
    """True at most once in `seconds`, for work that a loop does now and then."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = clock()

    def due(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
