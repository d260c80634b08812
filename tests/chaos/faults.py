"""What happens to a cluster, and when: a seeded sequence. Pure but for the clock that it is given."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "kill", "term", "pause", "restart_server", "fill_server", "fill_disk", "cut", "delay", "flush", "empty_server"
]
WEIGHTS: dict[Kind, float] = {
    "kill": 0.72,
    "term": 0.05,
    "pause": 0.25,
    "cut": 0.05,
    "delay": 0.03,
    "restart_server": 0.02,
    "fill_server": 0.01,
    "fill_disk": 0.01,
}
ONE_SERVER: tuple[Kind, ...] = ("fill_server", "cut", "delay")  # not where Sentinels or a cluster name the servers
LOSSES: dict[Kind, float] = {"flush": 0.02, "empty_server": 0.02}
WORKERS: tuple[Kind, ...] = ("kill", "term", "pause")
LEARNER: dict[Kind, float] = {"kill": 0.8, "term": 0.1, "pause": 0.1}
MEAN_PAUSE_S = 2.0  # between two faults
MEAN_PAUSE_REAL_S = 15.0  # an actor with a real engine takes 10 s to start
STOPPED_S = (0.5, 4.0)  # most are beyond the claim delay: the worker wakes up robbed
STARTING_S = 15.0  # a learner that is met at any second of its life, its start included


@dataclass(frozen=True)
class Fault:
    kind: Kind
    target: str
    """Name of a worker; empty for the server, its connections and the disk."""
    seconds: float = 0.0
    """How long a pause, a delay, a full server or disk lasts."""


@dataclass(frozen=True)
class LearnerFault:
    """When a learner is met: after so many more steps and then some, or after so many seconds, its start included."""

    kind: Kind
    steps: int | None
    seconds: float
    stopped_s: float
    """How long a pause lasts."""


class Faults:
    """The same seed, the same faults in the same order; the machine decides what they meet."""

    def __init__(
        self,
        seed: int,
        workers: Sequence[str],
        weights: Mapping[Kind, float] = WEIGHTS,
        mean_pause_s: float = MEAN_PAUSE_S,
    ) -> None:
        """`weights`: how often each kind comes."""
        self._weights, self._mean_pause_s = weights, mean_pause_s
        self._random = random.Random(seed)
        self._learner = random.Random(f"{seed}/learner")  # its steps decide when it is met
        self._workers = list(workers)

    def pause(self) -> float:
        """Seconds until the next fault."""
        return self._random.expovariate(1 / self._mean_pause_s)

    def next(self) -> Fault:
        kind = self._random.choices(list(self._weights), list(self._weights.values()))[0]
        if kind not in WORKERS:
            return Fault(kind, "", self._random.uniform(0.5, 3.0))
        return Fault(kind, self._random.choice(self._workers), self._random.uniform(*STOPPED_S))

    def learner(self) -> LearnerFault:
        kind = self._learner.choices(list(LEARNER), list(LEARNER.values()))[0]
        stopped_s = self._learner.uniform(*STOPPED_S)
        if self._learner.random() < 0.25:
            return LearnerFault(kind, None, self._learner.uniform(0.0, STARTING_S), stopped_s)
        return LearnerFault(kind, self._learner.randint(1, 5), self._learner.uniform(0.0, 0.5), stopped_s)
