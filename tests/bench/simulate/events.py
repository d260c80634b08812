"""Simulated time: events in their order, and cores that the jobs on them share.

A heap instead of a simulation library: an actor's next event moves whenever a group joins it or new weights arrive,
which here is a cancelled entry and in a process-based library an interrupted process, several times as slow.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

Act = Callable[[], None]


@dataclass(slots=True)
class Event:
    act: Act | None

    def cancel(self) -> None:
        self.act = None


class Clock:
    """Simulated seconds. `at` asks for an event, `run` lets time pass until none is left or `over` holds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Event]] = []
        self._number = 0  # equal times keep the order in which they were asked for

    def at(self, time: float, act: Act) -> Event:
        """`act` at `time`, at once if that is past."""
        self._number += 1
        event = Event(act)
        heapq.heappush(self._events, (max(time, self.now), self._number, event))
        return event

    def run(self, over: Callable[[], bool], until: float = math.inf) -> None:
        """Raises RuntimeError beyond `until` seconds: what is simulated does not come to its end."""
        while self._events and not over():
            time, _, event = heapq.heappop(self._events)
            if event.act is None:
                continue
            if time > until:
                raise RuntimeError(f"no end after {until:g} simulated seconds; is something short by far?")
            self.now = time
            event.act()


class Cores:
    """Jobs share `cores` equally, none on more than one (processor sharing). math.inf: each has a core of its own."""

    def __init__(self, clock: Clock, cores: float) -> None:
        self._clock = clock
        self._cores = cores
        self._work = 0.0  # core-seconds that every job present from the start would have got
        self._since = 0.0
        self._jobs: list[tuple[float, int, Act]] = []
        self._number = 0
        self._next: Event | None = None

    def run(self, work_s: float, done: Act) -> None:
        """`done` when a job of `work_s` core-seconds is."""
        if math.isinf(self._cores):
            self._clock.at(self._clock.now + work_s, done)
            return
        self._advance()
        self._number += 1
        heapq.heappush(self._jobs, (self._work + work_s, self._number, done))
        self._plan()

    @property
    def _rate(self) -> float:
        return min(1.0, self._cores / len(self._jobs)) if self._jobs else 0.0

    def _advance(self) -> None:
        self._work += (self._clock.now - self._since) * self._rate
        self._since = self._clock.now

    def _plan(self) -> None:
        if self._next:
            self._next.cancel()
        self._next = None
        if self._jobs:
            left = max(0.0, self._jobs[0][0] - self._work)
            self._next = self._clock.at(self._clock.now + left / self._rate, self._end)

    def _end(self) -> None:
        self._advance()
        end, _, done = heapq.heappop(self._jobs)
        self._work = max(self._work, end)  # rounding must not leave it behind
        self._plan()
        done()
