"""What the traces of tickets tell of an actor: each from take to publication, with new weights as events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.deliveries import Delivery
from common.schema import Policy, Rollout
from common.tracing import Event, Trace, Tracer

MOST_EVENTS = 128


@dataclass
class _Open:
    trace: Trace
    deliveries: int
    started_ns: int
    events: list[Event] = field(default_factory=list)

    def happened(self, what: str, **details: int) -> None:
        if len(self.events) < MOST_EVENTS:
            self.events.append((what, time.time_ns(), details))

    def end(self, fault: str = "", **told: int) -> None:
        told |= {"deliveries": self.deliveries}
        self.trace.span("sample", self.started_ns, time.time_ns(), told, events=self.events, fault=fault)


class SampleSpans:
    """Of the groups that are being sampled, by the names of their deliveries."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: dict[str, _Open] = {}
        self._policy: Policy | None = None

    def start(self, delivery: Delivery) -> None:
        """It is taken, or begun again."""
        if (known := self._open.get(delivery.name)) is not None:
            known.happened("begun again")
        elif (trace := self._tracer.of(delivery.ticket)) is not None:
            self._open[delivery.name] = _Open(trace, delivery.deliveries, time.time_ns())

    def follow(self, policy: Policy | None) -> None:
        """The policy that the engine samples from now."""
        if policy is not self._policy:
            self._policy = policy
            for one in self._open.values() if policy else ():
                one.happened("new weights", incarnation=policy.incarnation, step=policy.step)

    def end(self, groups: Sequence[tuple[Delivery, Rollout]], published: Sequence[bool]) -> None:
        for (delivery, rollout), accepted in zip(groups, published, strict=True):
            if (one := self._open.pop(delivery.name, None)) is not None:
                tokens = sum(len(completion.ids) for completion in rollout.completions)
                fault = "" if accepted else "not published: the ticket has moved on"
                one.end(fault, completions=len(rollout.completions), tokens=tokens)

    def give_up(self, name: str, why: str) -> None:
        if (one := self._open.pop(name, None)) is not None:
            one.end(why)

    @property
    def untold(self) -> int:
        """Spans that could not be told."""
        return self._tracer.untold

    def close(self) -> None:
        """What is not finished was handed back."""
        for name in list(self._open):
            self.give_up(name, "handed back")
        self._tracer.close()
