"""What the traces of tickets tell of the learner: when each was issued, how long it waited, what became of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.deliveries import Delivery
from common.schema import Scored
from common.tracing import Trace, Tracer, Value, epoch_ns
from learner.ledger import Ledger

LONGEST_S = 24 * 3600.0  # a group's own times came off the wire


@dataclass
class _Open:
    trace: Trace
    issued_ns: int
    ours: bool
    """Whether this learner issued it; else `issued_ns` is when its sampling began, at the latest."""
    came_ns: int = 0
    decided_ns: int = 0
    outcome: Mapping[str, Value] | None = None
    """What became of it; None before that is decided."""

    def waited(self, until_ns: int) -> None:
        self.trace.span("wait", self.came_ns, until_ns, {})

    def decide(self, **outcome: Value) -> None:
        self.decided_ns, self.outcome = time.time_ns(), outcome

    def end(self, outcome: Mapping[str, Value], fault: str = "") -> None:
        self.trace.root(self.issued_ns, time.time_ns(), {"issued_by_this_learner": self.ours, **outcome}, fault)


class TicketSpans:
    """Of the tickets that are open, by id and attempt: no more than may be in flight and wait for a commit."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: dict[tuple[int, int], _Open] = {}
        self._issued = 0

    def start(self, ledger: Ledger) -> None:
        """What earlier learners have issued begins for us when its group comes."""
        self._issued = ledger.issued

    def issued(self, ledger: Ledger, since: float) -> None:
        """Those that are new since the last call, put up from this time of the monotonic clock on."""
        for id in range(self._issued, ledger.issued):
            self._begin(id, 1, epoch_ns(since))
        self._issued = ledger.issued

    def compared(self, ledger: Ledger, since: float) -> None:
        """After a comparison with the broker, begun then: an attempt that it has lost ends, and the next one begins."""
        in_flight = ledger.in_flight() if self._open else {}
        for (id, attempt), one in list(self._open.items()):
            if (next_one := in_flight.get(id, attempt)) > attempt:
                one.end({"outcome": "lost"}, "lost by the broker, issued again")
                del self._open[id, attempt]
                self._begin(id, next_one, epoch_ns(since))

    def came(self, delivery: Delivery) -> None:
        """A scored group that is awaited."""
        group, ticket = delivery.message, delivery.ticket
        assert isinstance(group, Scored)
        if (ticket.id, ticket.attempt) not in self._open:
            seconds = min(max(group.rollout.seconds + group.seconds, 0.0), LONGEST_S)
            self._begin(ticket.id, ticket.attempt, time.time_ns() - int(seconds * 1e9), ours=False)
        if (one := self._of(delivery)) is not None:
            one.came_ns = time.time_ns()

    def trained(self, batch: Sequence[Delivery], started: float, ended: float, step: int) -> None:
        """A batch that made `step`, between these times of the monotonic clock."""
        started_ns, ended_ns = epoch_ns(started), epoch_ns(ended)
        for one in filter(None, map(self._of, batch)):
            one.waited(started_ns)
            one.trace.span("train", started_ns, ended_ns, {"step": step, "groups": len(batch)})
            one.decide(outcome="trained", step=step)

    def dropped(self, delivery: Delivery, reason: str) -> None:
        if (one := self._of(delivery)) is not None:
            one.waited(time.time_ns())
            one.decide(outcome="dropped", reason=reason)

    def committed(self, ledger: Ledger) -> None:
        """A checkpoint has whatever was decided: these tickets are closed."""
        in_flight = ledger.in_flight() if self._open else {}
        for (id, attempt), one in list(self._open.items()):
            if one.outcome is not None:
                one.trace.span("commit", one.decided_ns, time.time_ns(), {})
                one.end(one.outcome)
            elif id not in in_flight:
                one.end({"outcome": "dead_lettered"}, "given up: hero queue list says why")
            else:
                continue
            del self._open[id, attempt]

    @property
    def untold(self) -> int:
        """Spans that could not be told."""
        return self._tracer.untold

    def close(self, *, over: bool) -> None:
        """`over`: so is the run, and nobody will come back to what is in flight."""
        for one in self._open.values() if over else ():
            one.end({"outcome": "in_flight"})
        self._open.clear()
        self._tracer.close()

    def _begin(self, id: int, attempt: int, issued_ns: int, *, ours: bool = True) -> None:
        if (trace := self._tracer.at(id, attempt)) is not None:
            self._open[id, attempt] = _Open(trace, issued_ns, ours)

    def _of(self, delivery: Delivery) -> _Open | None:
        return self._open.get((delivery.ticket.id, delivery.ticket.attempt))
