"""Keeps the leases on what a worker is working on, from a thread of its own: sampling a long answer or
loading a large model must not look like death."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import structlog

from common.deliveries import Delivery
from common.errors import HeroError
from common.streams import Broker

log = structlog.get_logger("leases")


class Leases:
    """What this worker holds, of whichever lane. `lost` names what another worker has taken over."""

    def __init__(self, broker: Broker, claim_after_ms: int) -> None:
        self._broker = broker
        self._claim_after_ms = claim_after_ms
        self._pause_s = claim_after_ms / 3000
        self._held: dict[str, Delivery] = {}
        self._lost: set[str] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)
        self._thread.start()

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        with self._lock:
            self._held |= {d.name: d for d in deliveries}

    def release(self, deliveries: Iterable[Delivery]) -> None:
        with self._lock:
            for delivery in deliveries:
                self._held.pop(delivery.name, None)

    def lost(self) -> set[str]:
        """Names of deliveries that were taken over since the last call."""
        with self._lock:
            lost, self._lost = self._lost, set()
        return lost

    def close(self) -> None:
        """Hands back what is still held, so that others need not wait for the leases to run out."""
        self._closing.set()
        self._thread.join(5)
        try:
            self._broker.release(list(self._held.values()), self._claim_after_ms)
        except HeroError as error:
            log.warning("not handed back: the leases run out", held=len(self._held), why=str(error))

    def _keep(self) -> None:
        while not self._closing.wait(self._pause_s):
            with self._lock:
                held = list(self._held.values())
            if not held:
                continue
            try:
                mine = self._broker.renew(held)
            except HeroError as error:
                log.warning("leases not renewed", held=len(held), why=str(error))
                continue
            with self._lock:
                gone = {d.name for d in held if d.name not in mine and d.name in self._held}
                self._lost |= gone
                for name in gone:
                    del self._held[name]
