"""Any order of issuing, reading, robbing, crashing, handing over and closing on a real server, against a plain model,
in either lane: the other one stays as it is.

Two workers and the learner take turns at single commands, so a crash falls between any two of them, also inside the
methods that take several; learners that were replaced go on trying, and take groups away from the living one.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any, ClassVar

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

from common.deliveries import EXPECTED, Delivery
from common.errors import Fenced, SchemaError
from common.lanes import GROUPS, LANES, NEXT, Lane, Stage, named, state_of
from common.schema import Rollout, Scored, Ticket
from common.server import LocalServer
from common.streams import Broker
from tests import make
from tests.chaos.audit import entries

STAGES = ["tickets", "rollouts", "scored"]
WORKERS = st.integers(0, 1)
HELD = precondition(lambda self: any(self.held))  # else most turns would do nothing


class Crash(Exception):
    """Of a worker, between two commands."""


class Streams(RuleBasedStateMachine):
    server: ClassVar[LocalServer]

    @initialize(lane=st.sampled_from(LANES))
    def begin(self, lane: Lane) -> None:
        self.lane = lane
        self.run_id = f"machine-{uuid.uuid4().hex[:8]}"
        self.learner = self.broker("learner")
        self.learner.check()
        self.incarnations = [self.learner.take_over()]
        self.older: list[tuple[Broker, int]] = []
        self.scored: dict[str, Delivery] = {}
        self.workers = [self.broker("worker"), self.broker("worker")]
        self.held: list[list[Delivery]] = [[], []]
        self.open: dict[int, tuple[str, int]] = {}
        self.next_id = 0
        self.other = next(other for other in LANES if other != lane)
        for id in range(3):
            self.learner.issue(make.ticket(self.run_id, id, lane=self.other, incarnation=self.incarnations[-1]))
        self.issue(3)

    def broker(self, role: str) -> Broker:
        return Broker(self.server.url, self.run_id, role)

    def ticket(self, id: int, **changes: Any) -> Ticket:
        return make.ticket(self.run_id, id, **{"lane": self.lane, "incarnation": self.incarnations[-1]} | changes)

    def at(self, stage: str) -> Stage:
        """The stage in the lane of this machine."""
        return named(self.lane, stage)  # type: ignore[return-value]

    # -- the learner -----------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 3))
    def issue(self, count: int) -> None:
        tickets = [self.ticket(self.next_id + n) for n in range(count)]
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
        assert self.learner.issue(self.ticket(id, attempt=attempt))
        self.open[id] = ("tickets", attempt)

    @rule(takes_over=st.booleans())
    def be_replaced(self, takes_over: bool) -> None:
        """By a process of its own, which may take over what this one held before it knows."""
        self.older.append((self.learner, self.incarnations[-1]))
        self.learner = self.broker("learner")
        self.incarnations.append(self.learner.take_over())
        self.scored = {d.entry: d for d in self.learner.claim(self.at("scored"), 0, 10**6)} if takes_over else {}

    @precondition(lambda self: self.older)
    @rule(data=st.data())
    def an_older_learner_tries(self, data: st.DataObject) -> None:
        older, incarnation = data.draw(st.sampled_from(self.older))
        done = [(id, attempt, "") for id, (_, attempt) in self.open.items()] or [(0, 1, "")]
        with pytest.raises(Fenced):
            older.issue(self.ticket(self.next_id, incarnation=incarnation))
        with pytest.raises(Fenced):
            older.close(incarnation, done, self.lane)
        with pytest.raises(Fenced):
            older.announce(make.policy(incarnation, 10**6))
        for delivery in older.read(self.at("scored"), 1, 0):
            with pytest.raises(Fenced):
                older.refuse(delivery, "why", incarnation)
        assert self.learner.policy() is None

    @precondition(lambda self: self.older)
    @rule(data=st.data(), count=st.integers(1, 3))
    def an_older_learner_reads(self, data: st.DataObject, count: int) -> None:
        data.draw(st.sampled_from(self.older))[0].read(self.at("scored"), count, 0)

    @rule(count=st.integers(1, 3))
    def gather(self, count: int) -> None:
        self.scored |= {d.entry: d for d in self.learner.read(self.at("scored"), count, 0)}

    @rule()
    def inherit(self) -> None:
        self.scored |= {d.entry: d for d in self.learner.inherit(self.at("scored"), 0)}

    @rule()
    def ask_again(self) -> None:
        """The server counts as the learner's exactly what it holds."""
        assert self.learner.missed(self.at("scored"), self.scored.keys()) == []

    @precondition(lambda self: self.scored)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """What was gathered, twice."""
        held = list(self.scored.values())[: data.draw(st.integers(1, len(self.scored)))]
        done = [(d.ticket.id, d.ticket.attempt, d.entry) for d in held]
        for _ in range(2):
            self.learner.close(self.incarnations[-1], done, self.lane)
        for id, attempt, entry in done:
            del self.scored[entry]
            if self.open.get(id, ("", 0))[1] == attempt:
                del self.open[id]

    @rule(data=st.data(), again=st.booleans())
    def settle_a_letter(self, data: st.DataObject, again: bool) -> None:
        """Its ticket is put up again, or it is forgotten; a ticket that has moved on stays where it is."""
        if not (letters := self.learner.dead_letters()):
            return
        entry, letter = data.draw(st.sampled_from(letters))
        if not again:
            assert self.learner.drop([entry]) == 1 and self.learner.drop([entry]) == 0
            return
        assert letter.id is not None and letter.attempt is not None
        if self.lane == "eval":
            with pytest.raises(SchemaError, match="one of evaluation"):
                self.learner.retry(entry, letter)
            return
        free = self.open.get(letter.id) in (None, ("dead", letter.attempt))
        assert self.learner.retry(entry, letter) == free
        assert not self.learner.retry(entry, letter), "a client's retry"
        if free:
            self.open[letter.id] = ("tickets", letter.attempt + 1)

    @rule()
    def trim(self) -> None:
        self.learner.trim()

    # -- workers ---------------------------------------------------------------------------------------------

    @rule(who=WORKERS, stage=st.sampled_from(STAGES[:2]), count=st.integers(1, 3))
    def read(self, who: int, stage: str, count: int) -> None:
        self.held[who] += self.workers[who].read(self.at(stage), count, 0)

    @rule(who=WORKERS, upto=st.sampled_from(STAGES[1:]))
    def work(self, who: int, upto: str) -> None:
        """Everything that is unread goes on by one stage or by two, so that later stages are reached often."""
        for stage in STAGES[: STAGES.index(upto)]:
            for delivery in self.workers[who].read(self.at(stage), 99, 0):
                self.publish(who, delivery)

    @HELD
    @rule(who=WORKERS, stage=st.sampled_from(STAGES[:2]))
    def rob(self, who: int, stage: str) -> None:
        """Takes over every lease, as after a long pause of the other, who does not know."""
        known = {d.entry for d in self.held[who]}
        self.held[who] += [d for d in self.workers[who].claim(self.at(stage), 0, 10**6) if d.entry not in known]

    @HELD
    @rule(who=WORKERS)
    def crash(self, who: int) -> None:
        self.workers[who], self.held[who] = self.broker("worker"), []

    @HELD
    @rule(who=WORKERS, stage=st.sampled_from(STAGES[:2]), after=st.integers(0, 2))
    def crash_while_it_robs(self, who: int, stage: str, after: int) -> None:
        """Between any two commands of a claim."""
        worker, commands = self.workers[who], iter(range(after))
        asked = worker._wait_for

        def wait_for(*arguments: Any) -> Any:
            if next(commands, None) is None:
                raise Crash
            return asked(*arguments)

        worker._wait_for = wait_for  # type: ignore[method-assign]
        with suppress(Crash):
            worker.claim(self.at(stage), 0, 10**6)
        self.crash(who)

    @HELD
    @rule(who=WORKERS, stage=st.sampled_from(STAGES[:2]))
    def give_up(self, who: int, stage: str) -> None:
        """Takes over what was delivered once; what was more often, is a dead letter."""
        key, group = self.learner.key(self.at(stage)), GROUPS[self.at(stage)]
        times = {
            p["message_id"]: p["times_delivered"] for p in self.learner._redis.xpending_range(key, group, "-", "+", 99)
        }
        before = {entry for entry, _ in self.learner.dead_letters()}
        known = {d.entry for d in self.held[who]}
        taken = self.workers[who].claim(self.at(stage), 0, 2)
        assert all(times[d.entry.encode()] == 1 for d in taken)
        self.held[who] += [d for d in taken if d.entry not in known]
        for entry, letter in self.learner.dead_letters():
            if entry not in before:
                assert letter.id is not None and letter.attempt is not None and "given up" in letter.reason
                self.open[letter.id] = ("dead", letter.attempt)

    @HELD
    @rule(who=WORKERS)
    def hand_back(self, who: int) -> None:
        """What is still its own is free for others at once; what was robbed is not."""
        worker, other = self.workers[who], self.workers[1 - who]
        mine = worker.renew(self.held[who]) if self.held[who] else set()
        worker.release(self.held[who], 3_600_000)
        self.held[who] = []
        taken = [d for stage in STAGES[:2] for d in other.claim(self.at(stage), 3_600_000, 10**6)]
        assert {d.name for d in taken} == mine
        self.held[1 - who] += taken

    @HELD
    @rule(who=WORKERS, stage=st.sampled_from(STAGES[:2]))
    def leave(self, who: int, stage: str) -> None:
        self.workers[who].leave(self.at(stage))

    @HELD
    @rule(data=st.data(), again=st.booleans())
    def hand_over(self, data: st.DataObject, again: bool) -> None:
        who = data.draw(st.sampled_from([n for n in (0, 1) if self.held[n]]))
        for delivery in self.held[who][: data.draw(st.integers(1, 3))]:
            self.publish(who, delivery)
            if again:
                assert not self.workers[who].hand_over(delivery, self.result_of(delivery), 0.9), "a client's retry"
            self.held[who].remove(delivery)

    @HELD
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from([n for n in (0, 1) if self.held[n]]))
        delivery = data.draw(st.sampled_from(self.held[who]))
        ticket = delivery.ticket
        self.workers[who].bury(delivery, "why", "")
        if self.open.get(ticket.id) == (state_of(delivery.stage), ticket.attempt):
            self.open[ticket.id] = ("dead", ticket.attempt)
        self.held[who].remove(delivery)

    @HELD
    @rule(who=WORKERS)
    def renew(self, who: int) -> None:
        other = self.workers[1 - who].consumer
        mine = self.workers[who].renew(self.held[who])
        pending = {
            f"{stage}/{p['message_id'].decode()}": p["consumer"].decode()
            for stage, group in GROUPS.items()
            for p in self.learner._redis.xpending_range(self.learner.key(stage), group, "-", "+", 10**4)
        }
        held = {d.name for d in self.held[who]}
        assert mine == {name for name in held if pending.get(name) == self.workers[who].consumer}
        assert all(pending.get(name) != other or name not in mine for name in held)

    def publish(self, who: int, delivery: Delivery) -> None:
        ticket = delivery.ticket
        first = self.open.get(ticket.id) == (state_of(delivery.stage), ticket.attempt)
        assert self.workers[who].hand_over(delivery, self.result_of(delivery), 0.9) == first
        if first:
            self.open[ticket.id] = (state_of(NEXT[delivery.stage]), ticket.attempt)

    # -- what always holds -----------------------------------------------------------------------------------

    @invariant()
    def the_broker_is_as_the_model(self) -> None:
        if not hasattr(self, "open"):
            return
        assert self.learner.open_tickets(self.lane) == self.open
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
        backlog = self.learner.backlog()
        for stage in STAGES:
            state = backlog[self.at(stage)]
            assert state["lag"] is not None
            assert state["lag"] + state["pending"] == len(self.unacknowledged()[stage])  # type: ignore[operator]

    @invariant()
    def the_other_lane_stays_as_it_is(self) -> None:
        if not hasattr(self, "open"):
            return
        assert self.learner.open_tickets(self.other) == {id: ("tickets", 1) for id in range(3)}
        backlog = {state_of(s): state for s, state in self.learner.backlog().items() if s != self.at(state_of(s))}
        assert [(backlog[stage]["lag"], backlog[stage]["pending"]) for stage in STAGES] == [(3, 0), (0, 0), (0, 0)]

    def unacknowledged(self) -> dict[str, list[tuple[int, int]]]:
        return {stage: entries(self.learner._redis, self.run_id, self.at(stage)) for stage in STAGES}

    @staticmethod
    def result_of(delivery: Delivery) -> Rollout | Scored:
        message = delivery.message
        assert isinstance(message, EXPECTED[state_of(delivery.stage)])
        return make.scored(message) if isinstance(message, Rollout) else make.rollout(delivery.ticket)


@pytest.mark.timeout(300)
def test_the_streams_as_a_state_machine(server: LocalServer) -> None:
    Streams.server = server
    run_state_machine_as_test(Streams, settings=settings(max_examples=50, stateful_step_count=50, deadline=None))
