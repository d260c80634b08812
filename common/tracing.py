"""Traces of tickets across processes, without a word of it on the wire: which tickets, and under which ids, is a hash.

    ticket              learner    from issue to commit: the root, told last
      sample            actor      from take to publication; new weights are events in it
      score             scorer     from take to publication
        verify, reward model
      wait              learner    until its batch was full, or it was dropped
      train             learner    its batch
      commit            learner    until a checkpoint had it

Every attempt at a ticket of training is a trace of its own. A process that dies tells nothing of what it had in hand.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from common.extras import needs
from common.outbox import Outbox
from common.schema import Ticket
from common.settings import Sections
from common.shared_state import SharedState

CLOSE_S = 5.0
LINGER_S = 1.0

Value = str | int | float | bool
Event = tuple[str, int, Mapping[str, Value]]
"""Name, nanoseconds of the epoch, attributes."""


@dataclass(frozen=True)
class Span:
    """Something that a process did for a ticket.

    Span(name="sample", trace=0x4bf9..., id=0x00f0..., parent=0xa3ce..., start_ns=1795396600_000000000, end_ns=...,
         attributes={"hero.ticket": 17, "hero.attempt": 1, "tokens": 320}, events=[("new weights", ..., {"step": 4})])
    """

    name: str
    trace: int
    id: int
    parent: int | None
    """None for the root."""
    start_ns: int
    end_ns: int
    """Nanoseconds of the epoch."""
    attributes: Mapping[str, Value]
    events: Sequence[Event] = ()
    fault: str = ""
    """Why it came to nothing; empty when it did not."""


def check(settings: Sections) -> None:
    """Raises ConfigError when traces are asked for and their package is missing."""
    if share := settings.tracing.share:
        needs(f"tracing.share = {share:g}", "opentelemetry.exporter.otlp.proto.http.trace_exporter", "tracing")


def trace_of(run: str, ticket: int, attempt: int) -> int:
    """The id of the trace of an attempt at a ticket of training."""
    return _hash(16, run, ticket, attempt)


def root_of(trace: int) -> int:
    """The id of the span that all others of a trace are under."""
    return _hash(8, trace)


def epoch_ns(monotonic_s: float) -> int:
    """When this process's monotonic clock had that value."""
    return time.time_ns() - int((time.monotonic() - monotonic_s) * 1e9)


class Tracer:
    """A process's part in the traces of a run. Never waits, never raises; off it costs a comparison a ticket."""

    def __init__(self, settings: Sections, process: SharedState, role: str) -> None:
        self._run, self.process = process.run, process.consumer
        self._bound = round(settings.tracing.share * 2**64)
        self._outbox: Outbox[Span] | None = None
        if self._bound:
            from common.otlp import Collector

            collector = Collector(settings.tracing.endpoint, role, process.run, process.consumer)
            self._outbox = Outbox("the collector of traces", collector, linger_s=LINGER_S)

    @property
    def untold(self) -> int:
        """Spans that could not be told."""
        return self._outbox.lost if self._outbox else 0

    def of(self, ticket: Ticket) -> Trace | None:
        """The trace of a ticket; None of those that are not traced, which all of evaluation's are."""
        return self.at(ticket.id, ticket.attempt) if ticket.lane == "train" else None

    def at(self, id: int, attempt: int) -> Trace | None:
        """The same by id and attempt. As in OpenTelemetry's own samplers the low 64 bits decide."""
        if not self._bound or (trace := trace_of(self._run, id, attempt)) % 2**64 >= self._bound:
            return None
        return Trace(self, trace, {"hero.run": self._run, "hero.ticket": id, "hero.attempt": attempt})

    def tell(self, span: Span) -> None:
        if self._outbox:
            self._outbox.put(span)

    def close(self) -> None:
        """Tells what is left, for a few seconds at most."""
        if self._outbox:
            self._outbox.close(CLOSE_S)


@dataclass(frozen=True)
class Trace:
    """That of one attempt at a ticket."""

    tracer: Tracer
    id: int
    common: Mapping[str, Value]
    """Attributes of all its spans."""

    def root(self, start_ns: int, end_ns: int, attributes: Mapping[str, Value], fault: str = "") -> None:
        own = root_of(self.id)
        self.tracer.tell(Span("ticket", self.id, own, None, start_ns, end_ns, {**self.common, **attributes}, (), fault))

    def span(
        self,
        name: str,
        start_ns: int,
        end_ns: int,
        attributes: Mapping[str, Value],
        *,
        under: int | None = None,
        events: Sequence[Event] = (),
        fault: str = "",
    ) -> int:
        """Tells of one under the root, or `under` another; returns its id."""
        own = _hash(8, self.id, name, self.tracer.process, start_ns)
        parent = root_of(self.id) if under is None else under
        held = {**self.common, **attributes}
        self.tracer.tell(Span(name, self.id, own, parent, start_ns, end_ns, held, tuple(events), fault))
        return own


def _hash(size: int, *parts: str | int) -> int:
    """Never 0, which is no id."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=size).digest()) or 1
