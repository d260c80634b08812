"""Any order of issuing, reading, robbing, crashing, handing over and closing on a real server, against a plain model.

Two workers and the learner take turns at single commands, so a crash falls between any two of them; a learner that was
replaced goes on trying.
"""

from __future__ import annotations

import uuid
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from common.errors import Fenced
from common.schema import Rollout, Scored, Stage
from common.server import LocalServer
from common.streams import EXPECTED, GROUPS, NEXT, Broker, Delivery
from tests import make
from tests.chaos.audit import entries

STAGES: list[Stage] = ["tickets", "rollouts", "scored"]
WORKERS = st.integers(0, 1)


class Streams(RuleBasedStateMachine):
    server: ClassVar[LocalServer]

    @initialize()
    def begin(self) -> None:
        self.run_id = f"machine-{uuid.uuid4().hex[:8]}"
        self.learner = self.broker("learner")
        self.learner.check()
        self.incarnations = [self.learner.take_over()]
        self.workers = [self.broker("worker"), self.broker("worker")]
        self.held: list[list[Delivery]] = [[], []]
        self.open: dict[int, tuple[str, int]] = {}
        self.next_id = 0

    def broker(self, role: str) -> Broker:
        return Broker(self.server.url, self.run_id, role)

    # -- the learner -----------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 3))
    def issue(self, count: int) -> None:
        tickets = [make.ticket(self.run_id, self.next_id + n, incarnation=self.incarnations[-1]) for n in range(count)]
        assert self.learner.issue_together(tickets) == [True] * count
        assert self.learner.issue_together(tickets) == [False] * count, "a client's retry"
        for ticket in tickets:
            self.open[ticket.id] = ("tickets", 1)
        self.next_id += count

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def issue_again(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.open)))
        attempt = self.open[id][1] + 1
        assert self.learner.issue(make.ticket(self.run_id, id, attempt=attempt, incarnation=self.incarnations[-1]))
        self.open[id] = ("tickets", attempt)

    @rule()
    def be_replaced(self) -> None:
        self.incarnations.append(self.learner.take_over())

    @precondition(lambda self: len(self.incarnations) > 1)
    @rule(data=st.data())
    def an_older_learner_tries(self, data: st.DataObject) -> None:
        older = data.draw(st.sampled_from(self.incarnations[:-1]))
        with pytest.raises(Fenced):
            self.learner.issue(make.ticket(self.run_id, self.next_id, incarnation=older))
        with pytest.raises(Fenced):
            self.learner.close(older, [(id, attempt, "") for id, (_, attempt) in self.open.items()] or [(0, 1, "")])

    @rule(count=st.integers(1, 3))
    def train(self, count: int) -> None:
        """Reads what is scored and closes it, twice."""
        done = [(d.ticket.id, d.ticket.attempt, d.entry) for d in self.learner.read("scored", count, 0)]
        for _ in range(2):
            self.learner.close(self.incarnations[-1], done)
        for id, attempt, _ in done:
            if self.open.get(id, ("", 0))[1] == attempt:
                del self.open[id]

    @rule()
    def trim(self) -> None:
        self.learner.trim()

    # -- workers ---------------------------------------------------------------------------------------------

    @rule(who=WORKERS, stage=st.sampled_from(STAGES[:2]), count=st.integers(1, 3))
    def read(self, who: int, stage: Stage, count: int) -> None:
        self.held[who] += self.workers[who].read(stage, count, 0)

    @rule(who=WORKERS, stage=st.sampled_from(STAGES[:2]))
    def rob(self, who: int, stage: Stage) -> None:
        """Takes over every lease, as after a long pause of the other, who does not know."""
        known = {d.entry for d in self.held[who]}
        self.held[who] += [d for d in self.workers[who].claim(stage, 0, 10**6) if d.entry not in known]

    @rule(who=WORKERS)
    def crash(self, who: int) -> None:
        self.workers[who], self.held[who] = self.broker("worker"), []

    @precondition(lambda self: any(self.held))
    @rule(data=st.data(), again=st.booleans())
    def hand_over(self, data: st.DataObject, again: bool) -> None:
        who = data.draw(st.sampled_from([n for n in (0, 1) if self.held[n]]))
        delivery = data.draw(st.sampled_from(self.held[who]))
        ticket = delivery.ticket
        first = self.open.get(ticket.id) == (delivery.stage, ticket.attempt)
        assert self.workers[who].hand_over(delivery, self.result_of(delivery), 0.9) == first
        if first:
            self.open[ticket.id] = (NEXT[delivery.stage], ticket.attempt)
        if again:
            assert not self.workers[who].hand_over(delivery, self.result_of(delivery), 0.9), "a client's retry"
        self.held[who].remove(delivery)

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from([n for n in (0, 1) if self.held[n]]))
        delivery = data.draw(st.sampled_from(self.held[who]))
        ticket = delivery.ticket
        self.workers[who].bury(delivery, "why", "")
        if self.open.get(ticket.id) == (delivery.stage, ticket.attempt):
            self.open[ticket.id] = ("dead", ticket.attempt)
        self.held[who].remove(delivery)

    @precondition(lambda self: any(self.held))
    @rule(who=WORKERS)
    def renew(self, who: int) -> None:
        other = self.workers[1 - who].consumer
        mine = self.workers[who].renew(self.held[who])
        pending = {
            p["message_id"].decode(): p["consumer"].decode()
            for stage, group in GROUPS.items()
            for p in self.learner._redis.xpending_range(self.learner.key(stage), group, "-", "+", 10**4)
        }
        held = {d.entry for d in self.held[who]}
        assert mine == {entry for entry in held if pending.get(entry) == self.workers[who].consumer}
        assert all(pending.get(entry) != other or entry not in mine for entry in held)

    # -- what always holds -----------------------------------------------------------------------------------

    @invariant()
    def the_broker_is_as_the_model(self) -> None:
        if not hasattr(self, "open"):
            return
        assert self.learner.open_tickets() == self.open
        unread = self.unacknowledged()
        for id, (stage, attempt) in self.open.items():
            if stage != "dead":
                assert unread[stage].count((id, attempt)) == 1, f"ticket {id} has one message where its state says"
        for stage in STAGES:
            for id, attempt in unread[stage]:
                state = self.open.get(id)
                assert state is None or state[1] > attempt or state == (stage, attempt), "older attempts alone linger"

    @invariant()
    def lag_and_pending_are_right(self) -> None:
        if not hasattr(self, "open"):
            return
        for stage, state in self.learner.backlog().items():
            assert state["lag"] is not None
            assert state["lag"] + state["pending"] == len(self.unacknowledged()[stage])  # type: ignore[operator]

    def unacknowledged(self) -> dict[str, list[tuple[int, int]]]:
        return {stage: entries(self.learner._redis, self.run_id, stage) for stage in STAGES}

    @staticmethod
    def result_of(delivery: Delivery) -> Rollout | Scored:
        message = delivery.message
        assert isinstance(message, EXPECTED[delivery.stage])
        return make.scored(message) if isinstance(message, Rollout) else make.rollout(delivery.ticket)


@pytest.mark.timeout(300)
def test_the_streams_as_a_state_machine(server: LocalServer) -> None:
    Streams.server = server
    run_state_machine_as_test(Streams, settings=settings(max_examples=40, stateful_step_count=40, deadline=None))
