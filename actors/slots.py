"""Which tickets an actor works on: those of training before those of evaluation.

Of the slots, `actor.groups_in_flight`, one is evaluation's where there are tickets of it. All others are training's
first: what evaluation has in them is handed back when a ticket of training comes, the youngest group first. So a
ticket of training waits for one slot of evaluation at most, and a round of evaluation ends however busy training is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.engine import Engine
from actors.rollout import Groups
from common.deliveries import Delivery
from common.lanes import Stage
from common.leases import Leases
from common.lifecycle import Every
from common.settings import Sections
from common.streams import Broker

IDLE_BLOCK_MS = 200
EVAL_POLL_S = 0.05


class Slots:
    """`take` fills what is free; `start` is called with each ticket that is to be sampled now."""

    def __init__(
        self,
        settings: Sections,
        broker: Broker,
        engine: Engine,
        groups: Groups,
        leases: Leases,
        start: Callable[[Delivery], None],
    ) -> None:
        self._count = settings.actor.groups_in_flight
        self._claim_after_ms, self._last = settings.broker.claim_after_ms, settings.broker.max_deliveries
        self._broker, self._engine, self._groups, self._leases, self._start = broker, engine, groups, leases, start
        self._reclaim = Every(self._claim_after_ms / 2000)
        self._look_at_evaluation = Every(EVAL_POLL_S)
        self._clears = False
        """Whether nothing is taken before the engine has nothing left: for a ticket whose last delivery it is, which is
        sampled alone, should it be what ends engines."""

    def take(self, read_from: float = 0.0) -> None:
        """Takes over tickets whose leases ran out, or, from that time of the monotonic clock on, reads new ones."""
        if self._free + len(self._yielding) <= 0 or (self._clears and self._engine.busy):
            return
        reclaim = self._reclaim.due() or self._clears
        self._clears = False
        if not reclaim and time.monotonic() < read_from:
            return
        take = self._claim if reclaim else self._read
        evaluate = reclaim or self._look_at_evaluation.due()
        if evaluate and not self._groups.of("eval"):
            take("eval:tickets", min(1, self._free))
        take("tickets", self._free + len(self._yielding))
        if evaluate:
            take("eval:tickets", self._free)

    @property
    def _free(self) -> int:
        return self._count - len(self._groups)

    @property
    def _yielding(self) -> list[Delivery]:
        """Groups of evaluation that make room for training, the youngest first; the oldest one stays."""
        return self._groups.of("eval")[:0:-1]

    def _read(self, stage: Stage, most: int) -> None:
        if most > 0 and not self._clears:
            idle = stage == "tickets" and not self._engine.busy
            self._begin(self._broker.read(stage, most, IDLE_BLOCK_MS if idle else 0))

    def _claim(self, stage: Stage, most: int) -> None:
        if most > 0 and not self._clears:
            held = self._groups.entries(stage)
            self._begin(self._broker.claim(stage, self._claim_after_ms, self._last, held=held, count=most))

    def _begin(self, taken: list[Delivery]) -> None:
        """Starts what was taken, in the place of evaluation where there is no other; one's last delivery alone."""
        self._leases.hold(taken)
        for _ in range(len(taken) - self._free):
            self._hand_back(self._yielding[0])
        for delivery in taken:
            self._clears = delivery.deliveries == self._last > 1
            if self._clears and self._engine.busy:
                self._hand_back(delivery)
            else:
                self._start(delivery)

    def _hand_back(self, delivery: Delivery) -> None:
        """Gives a group up, and its ticket back, at once free for others."""
        self._groups.give_up(delivery.name)
        self._engine.abort([delivery.name])
        self._leases.release([delivery])
        self._broker.release([delivery], self._claim_after_ms)
