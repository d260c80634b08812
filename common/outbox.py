"""An outbox: a loop puts in what others are told, a thread of its own carries it; no trouble there is the loop's."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from common.background import Background

RETRY_S = 60.0  # after a failure: until then all is lost at once, so that no queue grows before who does not answer
TOGETHER = 512

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
log = structlog.get_logger("outbox")


class Carrier(Protocol[T_contra]):
    """Brings items to where they belong. Used by one thread."""

    def carry(self, items: Sequence[T_contra]) -> None:
        """Raises whatever goes wrong; the next call begins anew."""

    def close(self) -> None:
        """Ends what is open; called after a failure too, and then once more at the end."""


class Outbox(Generic[T]):
    """`put` neither waits nor raises. What does not fit or cannot be carried is lost: counted, and said once."""

    def __init__(self, to: str, carrier: Carrier[T], *, most: int = 2048, linger_s: float = 0.0) -> None:
        """`to`: whom the log names. At most `most` items wait, each for `linger_s` so that others go with it."""
        self._to, self._carrier, self._most, self._linger_s = to, carrier, most, linger_s
        self._waiting: deque[T] = deque()
        self._some = threading.Event()
        self._overflown = self._failed = self._in_hand = 0
        self._told = False
        self._retry_at = 0.0
        self._thread = Background(f"outbox {to}", self._carry_all)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Items that nobody was told of."""
        return self._overflown + self._failed

    def put(self, item: T) -> None:
        if len(self._waiting) < self._most:
            self._waiting.append(item)
            self._some.set()
        else:
            self._overflown += 1
            self._tell(f"{self._most} items wait already")

    def close(self, within_s: float) -> None:
        """Carries what is left, for at most so long."""
        self._thread.closed.set()
        self._some.set()
        if not self._thread.close(within_s):
            self._failed += self._in_hand + len(self._waiting)
            log.warning("not everything was carried in time", to=self._to, seconds=within_s)
        if self.lost:
            log.warning("not everything was carried", to=self._to, lost=self.lost)

    def _carry_all(self) -> None:
        while self._waiting or not self._thread.closed.is_set():
            self._some.wait()  # `put` or `close` ends it
            self._some.clear()
            self._thread.closed.wait(self._linger_s)
            while self._waiting:
                self._carry([self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))])
        self._end_carrier()

    def _carry(self, items: list[T]) -> None:
        self._in_hand = len(items)
        try:
            if time.monotonic() >= self._retry_at:
                self._carrier.carry(items)
            else:
                self._failed += len(items)
        except Exception as error:  # of a library, of the network, of a disk: whatever it is, the loop goes on
            self._failed += len(items)
            self._retry_at = time.monotonic() + RETRY_S
            self._tell(f"{type(error).__name__}: {error}")
            self._end_carrier()
        self._in_hand = 0

    def _end_carrier(self) -> None:
        try:
            self._carrier.close()
        except Exception as error:  # as above
            self._tell(f"{type(error).__name__}: {error}")

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            log.warning("cannot be carried, the run goes on without", to=self._to, why=why[:1000], again_in_s=RETRY_S)
