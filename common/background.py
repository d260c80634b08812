"""A job beside a process's own loop, in a thread: it ends with the process, and its failure is not silent."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs `work` until it returns; `work` is to look at `closed`."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.closed = threading.Event()
        """Set by `close`."""
        self._work = work
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raises what has ended it, if anything has."""
        if self._failed:
            raise self._failed

    def close(self, within_s: float | None = None) -> bool:
        """Asks it to end, and waits until it has, or for so long; whether it has."""
        self.closed.set()
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # whoever asks by `check` raises it
            self._failed = error
