"""Text of strangers on a terminal."""

from __future__ import annotations

import io

import pytest
import structlog

from common import logs
from common.untrusted import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a plain reason: 3 < 4 · é 漢", "a plain reason: 3 < 4 · é 漢"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r\tc\x00\x9b", "a\\nb\\r\\tc\\x00\\x9b"),
        ("\u202edlrow", "\\u202edlrow"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_would_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_on_a_terminal_is_not_steered_by_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    logs.start("test")
    structlog.get_logger("test").error("dead letter", reason="\x1b[2J\x07")
    structlog.contextvars.clear_contextvars()
    assert "\\x1b[2J\\x07" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue() and "\x07" not in terminal.getvalue()
