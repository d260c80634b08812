"""What the learner writes down: steps and groups in its logs, the latest in the broker for who looks on, and curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from common.connection import BrokerFull
from common.history import KEPT_GROUPS
from common.schema import Scored
from common.settings import Sections
from common.streams import Broker
from learner.curves import Curves
from learner.ledger import Ledger
from learner.metrics_log import MetricsLog
from learner.reward_log import RewardLog, shortened
from learner.room import Room
from learner.round import Figure

log = structlog.get_logger("learner")


class RunLog:
    """`group` for each that is trained or dropped, then `step`. Both wait for room on the disk, not in the broker."""

    def __init__(self, settings: Sections, broker: Broker, room: Room) -> None:
        folder = settings.run.folder
        self._broker, self._room = broker, room
        self._rewards = RewardLog(folder / "rewards", settings.learner.reward_log_mb)
        self._metrics = MetricsLog(folder / "metrics.jsonl")
        self._curves = Curves(settings, broker.run)
        self._latest: list[dict[str, Any]] = []
        self._full = False

    def group(
        self,
        group: Scored,
        outcome: str,
        step: int,
        advantages: NDArray[np.float64] | None = None,
        gated: bool = False,
    ) -> None:
        """As `RewardLog` has it."""
        line = self._room.write(lambda: self._rewards.write(group, outcome, step, advantages, gated))
        if line:
            self._latest = [*self._latest[1 - KEPT_GROUPS :], line]

    def step(self, step: int, metrics: Mapping[str, Any], seconds: Mapping[str, float], ledger: Ledger) -> None:
        """As `MetricsLog` has it."""
        line = self._room.write(lambda: self._metrics.write(step, metrics, seconds, ledger))
        if line is None:
            return
        self._curves.step(line)
        try:
            self._broker.remember(line, [shortened(one) for one in self._latest])
            self._full = False
        except BrokerFull as error:
            if not self._full:
                log.warning("the broker is full: this step is in the logs alone", step=step, why=str(error))
            self._full = True
        self._latest = []

    def evaluated(self, figure: Figure) -> None:
        """A round of evaluation, which has its own log, for those who draw."""
        self._curves.evaluated(figure)

    @property
    def untold(self) -> int:
        """Lines that could not be drawn elsewhere."""
        return self._curves.lost

    def close(self) -> None:
        self._rewards.close()
        self._metrics.close()
        self._curves.close()
