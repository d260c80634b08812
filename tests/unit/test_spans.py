"""What the learner tells of its tickets: each attempt ends once, with what became of it."""

from __future__ import annotations

import dataclasses
import time

import pytest

from common.deliveries import Delivery
from common.schema import Scored
from common.tracing import Span, Tracer, root_of, trace_of
from learner.ledger import Ledger
from learner.spans import LONGEST_S, TicketSpans
from tests.make import rollout, scored, ticket

RUN = "run-1"


class Heard(Tracer):
    """Takes every ticket, and keeps what is told."""

    def __init__(self) -> None:
        self._run, self.process, self._bound, self._outbox = RUN, "learner-1", 2**64, None
        self.spans: list[Span] = []

    def tell(self, span: Span) -> None:
        self.spans.append(span)

    def roots(self) -> dict[tuple[int, int], Span]:
        """By ticket and attempt."""
        found = {(s.attributes["hero.ticket"], s.attributes["hero.attempt"]): s for s in self.spans if s.parent is None}
        assert len(found) == sum(span.parent is None for span in self.spans), "one each"
        return found  # type: ignore[return-value]


@pytest.fixture
def heard() -> Heard:
    return Heard()


def group(id: int, attempt: int = 1, seconds: float = 0.2) -> Delivery:
    made = dataclasses.replace(rollout(ticket(RUN, id, attempt=attempt)), seconds=seconds)
    return Delivery("scored", "1-1", scored(made), 1)


def issued(spans: TicketSpans, count: int) -> Ledger:
    ledger = Ledger()
    for id in range(count):
        ledger.issue(id)
    spans.issued(ledger, time.monotonic())
    return ledger


def test_each_ticket_is_told_when_a_checkpoint_has_what_became_of_it(heard: Heard) -> None:
    # Given four tickets: one trained, one dropped, one given up, one in flight
    spans = TicketSpans(heard)
    ledger = issued(spans, 4)
    trained, stale = group(0), group(1)
    for one in (trained, stale):
        spans.came(one)
    began = time.monotonic()
    ledger.train([0], 5)
    spans.trained([trained], began, time.monotonic(), 5)
    ledger.drop(1, "stale")
    spans.dropped(stale, "stale")
    ledger.bury(2)
    assert not heard.roots(), "it is not durable yet"
    # When it is committed
    spans.committed(ledger)
    spans.committed(ledger)
    # Then three are told, with their ends
    roots = heard.roots()
    told = {
        id: {key: root.attributes.get(key) for key in ("outcome", "step", "reason")} for (id, _), root in roots.items()
    }
    assert told == {
        0: {"outcome": "trained", "step": 5, "reason": None},
        1: {"outcome": "dropped", "step": None, "reason": "stale"},
        2: {"outcome": "dead_lettered", "step": None, "reason": None},
    }
    assert [root.fault for root in roots.values()] == ["", "", "given up: hero queue list says why"]
    parts = {(span.attributes["hero.ticket"], span.name) for span in heard.spans if span.parent is not None}
    assert parts == {(0, "wait"), (0, "train"), (0, "commit"), (1, "wait"), (1, "commit")}
    assert all(span.start_ns <= span.end_ns for span in heard.spans)
    assert {span.parent for span in heard.spans if span.attributes["hero.ticket"] == 0} == {
        None,
        root_of(trace_of(RUN, 0, 1)),
    }
    # And the last one when the run is over, since nobody will come back to it
    spans.close(over=True)
    assert heard.roots()[3, 1].attributes["outcome"] == "in_flight"


def test_an_attempt_that_was_lost_ends_and_the_next_is_a_trace_of_its_own(heard: Heard) -> None:
    spans = TicketSpans(heard)
    ledger = issued(spans, 2)
    ledger.reissue(1)
    spans.compared(ledger, time.monotonic())
    assert {key: root.attributes["outcome"] for key, root in heard.roots().items()} == {(1, 1): "lost"}
    again = group(1, attempt=2)
    spans.came(again)
    ledger.train([1], 1)
    spans.trained([again], time.monotonic(), time.monotonic(), 1)
    spans.committed(ledger)
    roots = heard.roots()
    assert roots[1, 2].attributes["outcome"] == "trained" and roots[1, 2].attributes["issued_by_this_learner"]
    assert roots[1, 1].trace != roots[1, 2].trace


@pytest.mark.parametrize(("seconds", "told_s"), [(3.0, 3.01), (1e300, LONGEST_S), (-5.0, 0.0)])
def test_what_an_earlier_learner_has_issued_begins_with_its_sampling(
    heard: Heard, seconds: float, told_s: float
) -> None:
    spans = TicketSpans(heard)
    ledger = Ledger()
    ledger.issue(0)
    spans.start(ledger)
    spans.issued(ledger, time.monotonic())
    found = group(0, seconds=seconds)
    assert isinstance(found.message, Scored)
    before = time.time_ns()
    spans.came(found)
    ledger.train([0], 1)
    spans.trained([found], time.monotonic(), time.monotonic(), 1)
    spans.committed(ledger)
    root = heard.roots()[0, 1]
    assert root.attributes["issued_by_this_learner"] is False
    assert before <= root.start_ns + told_s * 1e9 <= time.time_ns()
