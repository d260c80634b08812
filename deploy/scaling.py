"""Scorers of `hero up` that come and go with their lag: `deploy.autoscale` asked every few seconds, and done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import BrokerUnavailable
from common.lifecycle import Every
from common.settings import ScorerSettings
from common.streams import Broker
from deploy.autoscale import Autoscaler, Rule
from deploy.children import Children

LOOK_EVERY_S = 2.0
RECORD = "autoscale.jsonl"


class Scaling:
    """Between `count` and `most` scorers; every look is a line of RECORD in the run folder."""

    def __init__(
        self, options: ScorerSettings, broker: Broker, children: Children, start: Callable[[str], object], folder: Path
    ) -> None:
        """`start` starts the scorer of that name."""
        self._broker, self._children, self._start = broker, children, start
        self._most = options.most
        rule = Rule(options.count, options.at_most, options.lag_each, options.pending_each, options.window_s)
        self._scaler = Autoscaler(rule)
        self._count = options.count
        self._record = folder / RECORD
        self._look = Every(LOOK_EVERY_S)

    def look(self) -> None:
        if self._most is None or not self._look.due():
            return
        try:
            state = self._broker.backlog()["rollouts"]
        except BrokerUnavailable:
            return
        now, lag, pending = time.monotonic(), state["lag"], state["pending"]
        wanted = self._scaler.wanted(lag, pending, self._count, now)
        for number in range(self._count, wanted):
            self._start(f"scorer-{number}")
        for number in range(self._count - 1, wanted - 1, -1):
            self._children.retire(f"scorer-{number}")
        self._count = wanted
        with self._record.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"time": time.time(), "lag": lag, "pending": pending, "scorers": wanted}) + "\n")
