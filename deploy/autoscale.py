"""How many scorers a lag asks for: the rule of Kubernetes' HPA on what KEDA's redis-streams trigger reads. Pure.

Wanted are ceil(lag / lag_each) and ceil(pending / pending_each), whichever is more: the second keeps those that are
busy while nothing waits. Within TOLERANCE of what there is nothing changes. More come at once; as few as the highest
wish of the last `window_s` seconds, so that a lull ends nobody. A lag that the broker cannot tell changes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

TOLERANCE = 0.1
"""The HPA's --horizontal-pod-autoscaler-tolerance."""


@dataclass(frozen=True)
class Rule:
    least: int
    most: int
    lag_each: float
    """Entries that wait, for each scorer (KEDA: lagCount)."""
    pending_each: float
    """Entries that are being worked on (KEDA: pendingEntriesCount)."""
    window_s: float
    """The HPA's stabilizationWindowSeconds for scaling down."""

    def asks(self, lag: int, pending: int, now: int) -> int:
        """For the moment alone; `now` are there."""
        return max(self._of(lag, self.lag_each, now), self._of(pending, self.pending_each, now))

    def _of(self, value: int, each: float, now: int) -> int:
        if now and abs(value / (each * now) - 1.0) <= TOLERANCE:
            return now
        return math.ceil(value / each)


@dataclass
class Autoscaler:
    """`wanted` at every look; it remembers the wishes of the window."""

    rule: Rule
    _wishes: deque[tuple[float, int]] = field(default_factory=deque)

    def wanted(self, lag: int | None, pending: int | None, now: int, at_s: float) -> int:
        """How many there should be; `at_s` on a clock that only rises."""
        if lag is None or pending is None:
            return now
        self._wishes.append((at_s, self.rule.asks(lag, pending, now)))
        while self._wishes[0][0] < at_s - self.rule.window_s:
            self._wishes.popleft()
        newest = self._wishes[-1][1]
        held = max(newest, min(now, max(wish for _, wish in self._wishes)))
        return min(max(held, self.rule.least), self.rule.most)
