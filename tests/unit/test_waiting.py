"""What a process waits for is told: in its state at once, in its log when it lasts."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from common.waiting import SAY_EVERY_S, Waiting


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_wait_is_in_the_state_at_once_and_in_the_log_when_it_lasts() -> None:
    structlog.reset_defaults()
    clock, asked = Clock(), []
    with capture_logs() as said:
        waiting = Waiting("actor", clock)
        assert waiting.state == {"waits_for": None, "waits_s": None, "waits_until": None}
        for second in range(2 * int(SAY_EVERY_S) + 2):
            clock.now = 100.0 + second
            waiting.on("tickets", until="some come", details=lambda: asked.append(1) or {"lag": 7})
            assert waiting.state == {"waits_for": "tickets", "waits_s": second, "waits_until": "some come"}
    assert [line["seconds"] for line in said] == [30, 60] and len(asked) == 2
    assert said[0] | {"seconds": 0} == {
        "event": "waiting for tickets", "until": "some come", "lag": 7, "seconds": 0, "log_level": "warning",
    }  # fmt: skip


def test_what_ends_or_changes_begins_anew() -> None:
    clock = Clock()
    with capture_logs() as said:
        waiting = Waiting("actor", clock)
        for what in ("policy", "tickets", None, "tickets"):
            clock.now += SAY_EVERY_S - 1
            if what is None:
                waiting.over()
                assert waiting.state["waits_for"] is None
            else:
                waiting.on(what, until="")
                assert waiting.seconds == 0
    assert said == []
