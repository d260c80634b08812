"""Access to a run for whoever only looks at it."""

from __future__ import annotations

import threading

from common.errors import BrokerUnavailable
from common.streams import Broker


class Onlooker(Broker):
    """Changes nothing, and does not wait for a broker that is away: BrokerUnavailable says so."""

    patience_s = 0.5

    def __init__(self, url: str, run: str, role: str) -> None:
        impatient = threading.Event()
        impatient.set()
        super().__init__(url, run, role, stop=impatient)

    def _prepare(self) -> None:
        raise BrokerUnavailable(f"the broker at {self.shown} has no streams of run {self.run}; its learner makes them")
