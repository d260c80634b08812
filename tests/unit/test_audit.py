"""The audit of a soak finds what it is for: each planted fault, and nothing in sound books."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from learner.ledger import Ledger
from tests.chaos.audit import audit

SOUND: dict[str, Any] = {
    "last_step": 2,
    "groups_per_step": 2,
    "open_tickets": {5: ("rollouts", 1), 6: ("dead", 1), 7: ("tickets", 1)},
    "messages": {"tickets": {(7, 1)}, "rollouts": {(5, 1)}, "scored": set()},
    "published": Counter({("tickets", 5, 1): 1, ("rollouts", 5, 1): 1, ("tickets", 7, 1): 1}),
}


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


def test_sound_books_are_clean() -> None:
    assert audit(books(), **SOUND).clean


def test_what_was_issued_after_the_checkpoint_is_not_lost() -> None:
    issued = {"open_tickets": SOUND["open_tickets"] | {8: ("tickets", 1)}}
    ledger = books()
    assert audit(ledger, **(SOUND | issued | {"messages": {"tickets": {(7, 1), (8, 1)}, "rollouts": {(5, 1)}}})).clean
    assert ledger.counts()["in_flight"] == 3


@pytest.mark.parametrize(
    ("what", "changes", "says"),
    [
        ("lost", {"open_tickets": {5: ("rollouts", 1)}}, "ticket 7 is in flight in the books and unknown"),
        ("lost", {"open_tickets": SOUND["open_tickets"] | {8: ("tickets", 1)}}, "ticket 8 is open as tickets 1"),
        ("lost", {"open_tickets": SOUND["open_tickets"] | {9: ("tickets", 1)}}, "ticket 8 is in flight in the books"),
        ("lost", {"messages": {"tickets": set(), "rollouts": {(5, 1)}}}, "ticket 7 is open as tickets 1"),
        ("lost", {"messages": {"tickets": {(7, 2)}, "rollouts": {(5, 1)}}}, "ticket 7 is open as tickets 1"),
        ("duplicated", {"published": Counter({("scored", 1, 1): 2})}, "ticket 1, attempt 1 came 2 times into scored"),
        ("duplicated", {"last_step": 3}, "step 3 holds 0 groups, not 2"),
        ("repeated", {"published": Counter({("tickets", 3, 2): 1})}, "ticket 3 was put up as attempt 2"),
    ],
)
def test_a_planted_fault_is_found(what: str, changes: dict[str, Any], says: str) -> None:
    found = audit(books(), **(SOUND | changes))
    assert any(says in line for line in getattr(found, what)), found
    assert not found.clean


def test_a_ticket_trained_twice_leaves_a_step_short() -> None:
    ledger = books()
    ledger._step[0] = 2
    found = audit(ledger, **SOUND)
    assert len(found.duplicated) == 2 and "step 1 holds 1 groups" in found.duplicated[0]
