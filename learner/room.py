"""Waiting for room on a disk: training stands still, says so, and goes on when there is some."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog

from common.errors import DiskFull
from common.waiting import Waiting

RETRY_S = 5.0

R = TypeVar("R")
log = structlog.get_logger("learner")


class Room:
    """Writes what raises DiskFull while there is no room for it."""

    def __init__(self, stop: threading.Event, waiting: Waiting, beat: Callable[[], None]) -> None:
        """`beat` is called at every try, so that others see who waits, and for what."""
        self._stop, self._waiting, self._beat = stop, waiting, beat

    def write(self, write: Callable[[], R]) -> R | None:
        """Result of `write`, when there was room for it; None if told to stop while there was none."""
        tries = 0
        while True:
            try:
                result = write()
            except DiskFull as error:
                tries += 1
                if tries == 1:
                    log.error("the disk is full, training waits", why=str(error), tries_every_s=RETRY_S)
                self._waiting.on("room on the disk", until=str(error))
                self._beat()
                if self._stop.wait(RETRY_S):
                    return None
            else:
                if tries:
                    log.info("the disk has room again", tries=tries)
                    self._waiting.over()
                return result
