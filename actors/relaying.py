"""Gives what this host has fetched to others: one of its actors does, and when that one is gone another."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

import structlog

from common.address import local_host
from common.lifecycle import Every
from common.weights.relay import Relay
from common.weights.store import RELAY_MS, WeightStore

log = structlog.get_logger("actor")


class Relaying:
    """`look` now and then, once something is there."""

    def __init__(self, store: WeightStore, root: Path) -> None:
        self._store, self._root = store, root
        self._host = local_host(store.url)
        self._lock: BinaryIO | None = None
        self._relay: Relay | None = None
        self._due = Every(RELAY_MS / 3000)

    def look(self) -> None:
        """Says that this host gives, and becomes the one that does if no other here is."""
        if self._host is None or not self._due.due():
            return
        if self._relay is None:
            self._relay = self._begun(self._host)
        if self._relay:
            self._store.relay_at(self._relay.address)

    def close(self) -> None:
        if self._relay:
            self._relay.close()
        if self._lock:
            self._lock.close()

    def _begun(self, host: str) -> Relay | None:
        lock = (self._root / ".relaying").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            relay = Relay(host, self._root, self._store.secret())
        except OSError as error:  # BlockingIOError: another one does
            lock.close()
            if not isinstance(error, BlockingIOError):
                log.warning("this host gives no weights to others", why=str(error))
            return None
        self._lock = lock
        return relay
