"""What happens to a network of hosts, and when: a seeded sequence. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["partition", "isolate", "vanish", "replace", "leave", "reboot", "cut", "delay", "loss"]
WEIGHTS: dict[Kind, float] = {
    "partition": 0.45,
    "isolate": 0.05,  # the broker, from everybody
    "vanish": 0.15,  # and a new host comes later
    "replace": 0.06,  # cut off and taken for dead: a new host comes, then the old one is back
    "leave": 0.05,  # asked to, while cut off
    "reboot": 0.04,  # of the broker's host, which keeps its disk
    "cut": 0.08,
    "delay": 0.06,
    "loss": 0.06,
}
MEAN_PAUSE_S = 4.0
SHORTEST_S, LONGEST_S = 1.0, 60.0
LONGEST_ISOLATION_S = 20.0  # nobody works meanwhile
REPLACED_S = (20.0, 60.0)  # so that the new host's processes are up when the old ones come back
LEAVING_S = (40.0, 60.0)  # so that it leaves without the broker
LEARNER = 0.4  # of those who vanish, are replaced or leave; the others share the rest
ANY_PAIR = 0.15  # of the partitions; the others are between the broker and somebody


@dataclass(frozen=True)
class NetworkFault:
    kind: Kind
    between: tuple[str, str]
    """Two hosts, the first one cannot reach the second; both are the same where only one is met."""
    one_way: bool
    seconds: float


class NetworkFaults:
    """The same seed, the same faults in the same order; the machine decides what they meet."""

    def __init__(self, seed: int, broker: str, workers: Sequence[str]) -> None:
        self._random = random.Random(seed)
        self._broker, self._workers = broker, list(workers)

    def pause(self) -> float:
        """Seconds until the next fault."""
        return self._random.expovariate(1 / MEAN_PAUSE_S)

    def next(self) -> NetworkFault:
        kind = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind == "partition":
            one_way = self._random.random() < 0.5
            return NetworkFault(kind, self._pair(), one_way, self._seconds(LONGEST_S))
        seconds = self._seconds(LONGEST_ISOLATION_S)
        if kind in ("replace", "leave"):
            seconds = self._random.uniform(*(REPLACED_S if kind == "replace" else LEAVING_S))
        met = self._worker() if kind in ("vanish", "replace", "leave") else self._broker
        return NetworkFault(kind, (met, met), False, seconds)

    def _worker(self) -> str:
        if self._random.random() < LEARNER:
            return "learner"
        return self._random.choice([name for name in self._workers if name != "learner"])

    def _pair(self) -> tuple[str, str]:
        if self._random.random() < ANY_PAIR:
            first, second = self._random.sample([self._broker, *self._workers], 2)
            return first, second
        pair = [self._broker, self._random.choice(self._workers)]
        self._random.shuffle(pair)
        return pair[0], pair[1]

    def _seconds(self, longest: float) -> float:
        """Each order of magnitude as often as the next: short ones end within a retransmission, long ones do not."""
        return math.exp(self._random.uniform(math.log(SHORTEST_S), math.log(longest)))
