"""The books against a naive model: one dict entry per ticket, counted by looking at all of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.errors import BooksError
from learner.ledger import IN_FLIGHT, TRAINED, Ledger

REASONS = ("stale", "empty", "abandoned_branch")


def ledger_of(count: int) -> Ledger:
    ledger = Ledger()
    for id in range(count):
        ledger.issue(id)
    return ledger


class Books(RuleBasedStateMachine):
    """Any sequence of events leaves the ledger equal to the naive model, before and after a restart."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.state: dict[int, str] = {}
        self.attempt: dict[int, int] = {}
        self.drops: Counter[str] = Counter()
        self.step = 0
        self.trained_in: dict[int, list[int]] = {}

    def open(self) -> list[int]:
        return [id for id, state in self.state.items() if state == "in_flight"]

    def some_open(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(self.open()))

    @rule(count=st.integers(1, 9))
    def issue(self, count: int) -> None:
        for _ in range(count):
            id = len(self.state)
            self.ledger.issue(id)
            self.state[id], self.attempt[id] = "in_flight", 1

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def reissue(self, data: st.DataObject) -> None:
        id = self.some_open(data)
        self.attempt[id] += 1
        assert self.ledger.reissue(id) == self.attempt[id]

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def train(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(self.open()), unique=True, min_size=1))
        self.step += 1
        self.ledger.train(ids, self.step)
        self.trained_in[self.step] = sorted(ids)
        self.state |= dict.fromkeys(ids, "trained")

    @precondition(lambda self: self.open())
    @rule(data=st.data(), reason=st.sampled_from(REASONS))
    def drop(self, data: st.DataObject, reason: str) -> None:
        id = self.some_open(data)
        self.ledger.drop(id, reason)
        self.state[id] = "dropped"
        self.drops[reason] += 1

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        id = self.some_open(data)
        self.ledger.bury(id)
        self.state[id] = "dead_lettered"

    @precondition(lambda self: self.state)
    @rule(data=st.data(), attempt=st.integers(1, 4))
    def revive(self, data: st.DataObject, attempt: int) -> None:
        """Only what was given up comes back, and only as a later attempt."""
        id = data.draw(st.sampled_from(sorted(self.state)))
        later = self.state[id] == "dead_lettered" and attempt > self.attempt[id]
        assert self.ledger.revive(id, attempt) == later
        if later:
            self.state[id], self.attempt[id] = "in_flight", attempt

    @rule()
    def restart(self) -> None:
        self.ledger = Ledger.restored(self.ledger.dump())

    @rule(data=st.data(), beyond=st.integers(0, 3))
    def adopt(self, data: st.DataObject, beyond: int) -> None:
        """The broker knows some tickets that this ledger has, perhaps settled, and some that it has not."""
        total = len(self.state) + beyond
        known = data.draw(st.lists(st.integers(0, total - 1), unique=True)) if total else []
        stages = st.sampled_from(["tickets", "scored", "dead"])
        found = {id: (data.draw(stages), data.draw(st.integers(1, 4))) for id in known}
        self.ledger.adopt(found)
        for id in range(len(self.state), max(found, default=-1) + 1):
            self.state[id], self.attempt[id] = "in_flight", 1
        for id, (stage, attempt) in found.items():
            if self.state[id] == "in_flight":
                self.attempt[id] = max(self.attempt[id], attempt)
            elif self.state[id] == "dead_lettered" and stage != "dead" and attempt > self.attempt[id]:
                self.state[id], self.attempt[id] = "in_flight", attempt

    @invariant()
    def equals_the_model(self) -> None:
        counted = Counter(self.state.values())
        expected = {name: counted[name] for name in ("in_flight", "trained", "dropped", "dead_lettered")}
        assert self.ledger.audit() == {"issued": len(self.state)} | expected
        assert self.ledger.in_flight() == {id: self.attempt[id] for id in self.open()}
        assert self.ledger.drops == self.drops
        for id, state in self.state.items():
            assert self.ledger.is_settled(id) == (state != "in_flight")
            assert self.ledger.accepts(id, self.attempt[id]) == (state == "in_flight")
            assert not self.ledger.accepts(id, self.attempt[id] + 1)
        for step, ids in self.trained_in.items():
            assert self.ledger.trained_in(step) == ids


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_it_grows_beyond_its_first_array() -> None:
    ledger = ledger_of(5000)
    ledger.train(range(0, 5000, 2), step=3)
    assert Ledger.restored(ledger.dump()).counts() == {
        "issued": 5000, "in_flight": 2500, "trained": 2500, "dropped": 0, "dead_lettered": 0,
    }  # fmt: skip
    assert len(ledger.dump()) < 20_000, "a state takes a few bytes"


@pytest.mark.parametrize("id", [1, 7])
def test_ids_come_in_sequence(id: int) -> None:
    with pytest.raises(BooksError, match="expected 0"):
        Ledger().issue(id)


def test_a_ticket_is_settled_once() -> None:
    ledger = ledger_of(3)
    ledger.train([0], step=1)
    for settle in (lambda: ledger.train([0], 2), lambda: ledger.drop(0, "stale"), lambda: ledger.bury(0)):
        with pytest.raises(BooksError, match="ticket 0 is not in flight"):
            settle()
    with pytest.raises(BooksError, match="ticket 9"):
        ledger.reissue(9)
    assert ledger.counts()["trained"] == 1 and ledger.trained_in(1) == [0]


def plant_state(ledger: Ledger) -> None:
    ledger._state[2] = TRAINED


def plant_reopened(ledger: Ledger) -> None:
    ledger._state[0] = IN_FLIGHT


def plant_forgotten_attempt(ledger: Ledger) -> None:
    del ledger._attempt[2]


def plant_forgotten_grave(ledger: Ledger) -> None:
    del ledger._buried[3]


def plant_drop(ledger: Ledger) -> None:
    ledger.drops["stale"] += 1


def plant_issued(ledger: Ledger) -> None:
    ledger.issued += 1


@pytest.mark.parametrize(
    "plant",
    [plant_state, plant_reopened, plant_forgotten_attempt, plant_forgotten_grave, plant_drop, plant_issued],
    ids=lambda f: f.__name__,
)
def test_an_audit_finds_a_planted_imbalance(plant) -> None:
    ledger = ledger_of(4)
    ledger.train([0], step=1)
    ledger.drop(1, "stale")
    ledger.bury(3)
    ledger.audit()
    plant(ledger)
    with pytest.raises(BooksError):
        ledger.audit()
    with pytest.raises(BooksError):
        Ledger.restored(ledger.dump())


def test_states_are_counted_not_subtracted() -> None:
    ledger = ledger_of(3)
    ledger._state[:3] = np.array([TRAINED, TRAINED, IN_FLIGHT])
    assert ledger.counts()["trained"] == 2
