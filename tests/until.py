"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(
    condition: Callable[[], object],
    what: str = "change",
    seconds: float = 60.0,
    passing: tuple[type[Exception], ...] = (),
) -> None:
    """Returns when `condition` is true; errors of the kinds in `passing` count as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except passing:
            pass
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.02)
