"""No silent wait: what a process waits for, since when and what would end it, in its heartbeat and in its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

SAY_EVERY_S = 30.0


class Waiting:
    """`waiting.on("tickets", until="the learner issues some")` as long as it lasts, `waiting.over()` after it.

    The first line comes when a wait has lasted SAY_EVERY_S, then one in each such span.
    """

    def __init__(self, role: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger(role)
        self._clock = clock
        self._what = self._until = ""
        self._since = self._say_at = clock()

    @property
    def seconds(self) -> float:
        """How long the present wait has lasted; 0 without one."""
        return self._clock() - self._since if self._what else 0.0

    @property
    def state(self) -> dict[str, Any]:
        """For a heartbeat: what it waits for, for how many seconds so far, and until when; each None without a wait."""
        seconds = self.seconds if self._what else None
        return {"waits_for": self._what or None, "waits_s": seconds, "waits_until": self._until or None}

    def on(self, what: str, *, until: str, details: Callable[[], dict[str, Any]] = dict) -> None:
        """It waits for `what`; `details` are asked for only when a line is due."""
        self._until = until
        if what != self._what:
            self._begin(what)
        elif self._clock() >= self._say_at:
            self._say_at = self._clock() + SAY_EVERY_S
            self._log.warning(f"waiting for {what}", seconds=round(self.seconds), until=until, **details())

    def over(self) -> None:
        """It does not wait any more."""
        if self._what:
            self._until = ""
            self._begin("")

    def _begin(self, what: str) -> None:
        self._what = what
        self._since = self._clock()
        self._say_at = self._since + SAY_EVERY_S
