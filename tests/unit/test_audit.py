"""The audit of a soak finds what it is for: each planted fault, and nothing in sound books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from learner.ledger import EvaluationLedger, Ledger
from tests.chaos.audit import BrokerState, Findings, audit, audit_evaluation

OPEN = {5: ("rollouts", 1), 6: ("dead", 1), 7: ("tickets", 1)}
MESSAGES = {"tickets": {(7, 1)}, "rollouts": {(5, 1)}, "scored": set[tuple[int, int]]()}
SOUND = BrokerState(OPEN, MESSAGES)
PUBLISHED = Counter({("tickets", 5, 1): 1, ("rollouts", 5, 1): 1, ("tickets", 7, 1): 1})


def books() -> Ledger:
    """Eight tickets: 0 to 3 trained, 4 dropped, 5 and 7 in flight, 6 given up."""
    ledger = Ledger()
    for id in range(8):
        ledger.issue(id)
    ledger.train([0, 2], step=1)
    ledger.train([1, 3], step=2)
    ledger.drop(4, "stale")
    ledger.bury(6)
    return ledger


def found_in(ledger: Ledger, broker: BrokerState = SOUND, published: Any = PUBLISHED, **given: Any) -> Findings:
    return audit(ledger, **{"last_step": 2, "groups_per_step": 2} | given, broker=broker, published=published)


def test_sound_books_are_clean() -> None:
    assert found_in(books()).clean


def test_what_was_issued_after_the_checkpoint_is_not_lost() -> None:
    ledger = books()
    messages = {"tickets": {(7, 1), (8, 1)}, "rollouts": {(5, 1)}}
    assert found_in(ledger, BrokerState(OPEN | {8: ("tickets", 1)}, messages)).clean
    assert ledger.counts()["in_flight"] == 3


@pytest.mark.parametrize(
    ("what", "broker", "says"),
    [
        ("lost", {"open_tickets": {5: ("rollouts", 1)}}, "ticket 7 is in flight in the books and unknown"),
        ("lost", {"open_tickets": OPEN | {8: ("tickets", 1)}}, "ticket 8 is open as tickets 1"),
        ("lost", {"open_tickets": OPEN | {9: ("tickets", 1)}}, "ticket 8 is in flight in the books"),
        ("lost", {"messages": {"tickets": set(), "rollouts": {(5, 1)}}}, "ticket 7 is open as tickets 1"),
        ("lost", {"messages": {"tickets": {(7, 2)}, "rollouts": {(5, 1)}}}, "ticket 7 is open as tickets 1"),
        ("lost", {"letters": ["ticket 6, scored: unreadable"]}, "given up: ticket 6, scored: unreadable"),
        ("duplicated", {"open_tickets": OPEN | {3: ("scored", 1)}}, "ticket 3 is settled in the books and still open"),
        ("repeated", {"open_tickets": OPEN | {7: ("tickets", 2)}}, "ticket 7 is at attempt 2"),
    ],
)
def test_a_planted_fault_in_the_broker_is_found(what: str, broker: dict[str, Any], says: str) -> None:
    found = found_in(books(), replace(SOUND, **broker))
    assert any(says in line for line in getattr(found, what)), found


@pytest.mark.parametrize(
    ("what", "published", "says"),
    [
        ("duplicated", {("scored", 1, 1): 2}, "ticket 1, attempt 1 came 2 times into scored"),
        ("repeated", {("tickets", 3, 2): 1}, "ticket 3 was put up as attempt 2"),
        ("lost", {("tickets", 8, 1): 1}, "tickets [8] were in a stream, and neither books nor broker know them"),
    ],
)
def test_a_planted_fault_in_the_streams_is_found(what: str, published: dict[Any, int], says: str) -> None:
    found = found_in(books(), published=Counter(published))
    assert any(says in line for line in getattr(found, what)), found


def trained_twice(ledger: Ledger) -> None:
    ledger._step[0] = 2


def ahead_of_its_weights(ledger: Ledger) -> None:
    ledger.train([5], step=3)


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (trained_twice, ["step 1 holds 1 groups, not 2: [2]", "step 2 holds 3 groups, not 2: [0, 1, 3]"]),
        (ahead_of_its_weights, ["5 tickets are booked as trained, 4 are in the steps that survive"]),
    ],
)
def test_a_planted_fault_in_the_books_is_found(plant: Callable[[Ledger], None], says: list[str]) -> None:
    ledger = books()
    plant(ledger)
    assert found_in(ledger).duplicated[: len(says)] == says


def test_a_step_without_a_record_is_found() -> None:
    assert "step 3 holds 0 groups, not 2: []" in found_in(books(), last_step=3).duplicated


def test_with_losses_tickets_come_again_and_none_is_trained_twice() -> None:
    again = BrokerState(OPEN | {7: ("tickets", 2)}, MESSAGES | {"tickets": {(7, 2)}}, ["ticket 5, rollouts: lost"])
    assert found_in(books(), again, Counter({("tickets", 7, 2): 1, ("scored", 1, 1): 2}), losses=True).clean
    ledger = books()
    trained_twice(ledger)
    assert not found_in(ledger, again, losses=True).clean


def evaluated(*ids: int, problems: int = 2, given_up: int = 0) -> Findings:
    """What is found where a round of two problems says so much, and the books have these tickets in it; a third one of
    the next round was answered for a policy of a branch that was left, and is asked again."""
    ledger = EvaluationLedger()
    for id in range(3):
        ledger.issue(id)
    for id in ids:
        ledger.evaluate(id, step=4)
    ledger.reissue(2)
    state = BrokerState({2: ("tickets", 2)}, {"tickets": {(2, 2)}})
    line = {"step": 4, "eval": {"problems": problems, "given_up": given_up}}
    published = Counter({("eval:tickets", 2, 1): 1, ("eval:scored", 2, 1): 1, ("eval:tickets", 2, 2): 1})
    return audit_evaluation(ledger, [line], 2, state, published | {("tickets", 99, 2): 2})


def test_a_round_with_every_problem_once_is_clean() -> None:
    assert evaluated(0, 1).clean


@pytest.mark.parametrize(
    ("what", "found", "says"),
    [
        ("lost", lambda: evaluated(0, 1, problems=1, given_up=1), "step 4 has 1 of 2 problems, 1 given up"),
        ("duplicated", lambda: evaluated(0), "the round of step 4 has 2 problems, the books 1: [0]"),
        ("lost", lambda: evaluated(0), "ticket 1 is in flight in the books and unknown to the broker"),
    ],
)
def test_a_planted_fault_in_a_round_is_found(what: str, found: Callable[[], Findings], says: str) -> None:
    assert any(says in line for line in getattr(found(), what)), found()
