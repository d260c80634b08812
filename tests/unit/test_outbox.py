"""What a loop puts into an outbox never holds it up, and is carried once or counted as lost."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from common import outbox
from common.outbox import TOGETHER, Outbox
from tests.until import until


class Carrying:
    """Keeps what comes; waits, or fails, as it is told."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.batches: list[int] = []
        self.may_go, self.fails, self.ended = threading.Event(), False, 0
        self.may_go.set()

    def carry(self, items: Sequence[int]) -> None:
        assert self.may_go.wait(30)
        if self.fails:
            raise OSError(28, "No space left on device")
        self.came += items
        self.batches.append(len(items))

    def close(self) -> None:
        self.ended += 1


def test_all_of_it_comes_in_order_and_what_waits_goes_together() -> None:
    carrying = Carrying()
    box = Outbox("test", carrying, most=5000)
    carrying.may_go.clear()
    for number in range(3000):
        box.put(number)
    carrying.may_go.set()
    box.close(30)
    assert carrying.came == list(range(3000)) and box.lost == 0
    assert max(carrying.batches) <= TOGETHER and len(carrying.batches) < 3000 / 100 and carrying.ended == 1


def test_who_is_too_slow_loses_what_does_not_fit_and_nobody_waits() -> None:
    carrying = Carrying()
    carrying.may_go.clear()
    box = Outbox("test", carrying, most=10)
    with capture_logs() as said:
        box.put(0)
        until(lambda: box._in_hand, "one on its way")
        for number in range(1, 1000):
            box.put(number)  # returns at once, else this would take 30 s each
        assert box.lost == 989
        box.close(0.01)
    assert box.lost == 1000, "what waited too, and what was on its way"
    assert [line["event"] for line in said] == [
        "cannot be carried, the run goes on without", "not everything was carried in time",
        "not everything was carried",
    ]  # fmt: skip
    carrying.may_go.set()


def test_a_failure_is_told_once_and_what_comes_later_is_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_S", 0.0)
    carrying = Carrying()
    box = Outbox("test", carrying)
    with capture_logs() as said:
        carrying.fails = True
        for number in range(5):
            box.put(number)
            until(lambda number=number: box.lost == number + 1, "loss")  # type: ignore[misc]
        until(lambda: carrying.ended == 5, "its beginning anew after each")
        carrying.fails = False
        box.put(5)
        box.close(30)
    assert carrying.came == [5] and box.lost == 5
    first, last = said
    assert "No space left" in first["why"] and first["to"] == "test" and last["lost"] == 5


def test_nothing_is_tried_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_S", 3600.0)
    carrying = Carrying()
    carrying.fails = True
    box = Outbox("test", carrying)
    box.put(0)
    until(lambda: box.lost == 1, "loss")
    carrying.fails = False
    for number in range(1, 9):
        box.put(number)
    box.close(30)
    assert carrying.came == [] and box.lost == 9
