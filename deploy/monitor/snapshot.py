"""What a run looks like at one moment, read from its broker without changing anything there."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.lanes import Stage
from common.streams import Broker
from learner.ledger import Ledger

STEPS = 200
"""Of the run's latest, as far as a terminal is wide."""
RATE_LOOKS = 10
"""Rates are means over so many looks."""
COUNTERS = {"actor": "tokens", "scorer": "groups", "learner": "step"}
"""What of a heartbeat says how much a process of that role has done."""
BOOKS = (*Ledger.NAMES[1:], Ledger.NAMES[0])
"""What is in flight last."""

_CONSUMER = re.compile(r"^[a-z]+-(.*)-\d+-[0-9a-f]{6}$")


@dataclass(frozen=True)
class Stream:
    """One stage: entries, how many were not delivered yet (None: the server cannot tell), and are worked on."""

    stage: Stage
    length: int
    lag: int | None
    pending: int
    oldest_s: float | None
    """Since the oldest came that nobody has done; None where nothing waits."""


@dataclass(frozen=True)
class Process:
    """One that has sent a heartbeat, or holds something. What it says of itself a stranger may have written."""

    name: str
    role: str
    host: str
    heard_s: float | None
    """Since its last heartbeat; None without one."""
    pending: int
    oldest_s: float
    """Of its leases."""
    state: Mapping[str, Any]
    """The heartbeat."""
    rate: float | None = None
    """Of COUNTERS, each second; None after a single look."""

    @property
    def version(self) -> int | None:
        """The policy's step that it works with, for those who have one."""
        step = self.state.get("step")
        return step if isinstance(step, int) and self.role in ("actor", "learner") else None


@dataclass(frozen=True)
class Snapshot:
    run: str
    broker: str
    over: bool
    policy: tuple[int, int] | None
    """Incarnation and step of the newest."""
    streams: list[Stream]
    processes: list[Process]
    shadows: list[dict[str, Any]]
    dead_letters: int
    memory_share: float
    """Of the fullest server; 0 without a limit."""
    books: dict[str, int] | None
    """Of the learner's heartbeat: BOOKS and "issued", "eval_..." too; None without a learner."""
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def balanced(self) -> bool | None:
        """Whether every ticket issued is in one of the books; None without books."""
        if self.books is None:
            return None
        return self.books.get("issued") == sum(self.books.get(name, 0) for name in BOOKS)


class Looker:
    """Looks again and again; rates are known from the second look on."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._counted: dict[str, deque[tuple[float, float]]] = {}

    def look(self) -> Snapshot:
        """Raises BrokerUnavailable."""
        broker = self._broker
        oldest = broker.oldest()
        streams = [
            Stream(stage, state["length"] or 0, state["lag"], state["pending"] or 0, oldest[stage])
            for stage, state in broker.backlog().items()
        ]
        beats = broker.processes()
        now = broker.now_ms() / 1000
        processes = [self._rated(one, now) for one in processes_of(beats, broker.consumers())]
        self._counted = {name: counted for name, counted in self._counted.items() if name in beats}
        return Snapshot(
            run=broker.run,
            broker=broker.shown,
            over=broker.over(),
            policy=broker.announced(),
            streams=streams,
            processes=processes,
            shadows=broker.shadows(),
            dead_letters=broker.dead_count(),
            memory_share=broker.used(),
            books=books_of(beats),
            steps=broker.steps(STEPS),
        )

    def _rated(self, one: Process, now: float) -> Process:
        count = one.state.get(COUNTERS.get(one.role, ""))
        if not isinstance(count, int | float) or one.heard_s is None:
            return one
        counted = self._counted.setdefault(one.name, deque(maxlen=RATE_LOOKS))
        counted.append((now, count))
        (before, first), (after, last) = counted[0], counted[-1]
        rate = max(0.0, last - first) / (after - before) if after > before else None
        return Process(**(vars(one) | {"rate": rate}))


def processes_of(beats: Mapping[str, Mapping[str, Any]], consumers: Sequence[Mapping[str, Any]]) -> list[Process]:
    """By role and name: who has sent a heartbeat, and who holds something without one."""
    held: dict[str, list[Mapping[str, Any]]] = {name: [] for name in beats}
    for one in consumers:
        if one["name"] in beats or one["pending"]:
            held.setdefault(one["name"], []).append(one)
    found = [
        Process(
            name=name,
            role=beats[name]["role"] if name in beats else name.partition("-")[0],
            host=match[1] if (match := _CONSUMER.match(name)) else "?",
            heard_s=beats[name]["heard_s"] if name in beats else None,
            pending=sum(one["pending"] for one in leases),
            oldest_s=max((one["oldest_s"] for one in leases), default=0.0),
            state=beats.get(name, {}),
        )
        for name, leases in held.items()
    ]
    order = {"learner": 0, "actor": 1, "scorer": 2}
    return sorted(found, key=lambda one: (order.get(one.role, 3), one.name))


def books_of(beats: Mapping[str, Mapping[str, Any]]) -> dict[str, int] | None:
    """The learner's that was heard of last."""
    learners = [beat for beat in beats.values() if beat["role"] == "learner" and "issued" in beat]
    if not learners:
        return None
    last = min(learners, key=lambda beat: beat["heard_s"])
    names = ("issued", *BOOKS)
    wanted = [*names, *(name for name in last if name.startswith("eval_"))]
    return {name: last[name] for name in wanted if isinstance(last.get(name), int)}
