"""Bars on a pipe say now and then how far they are."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from common import progress
from common.progress import Bars


def told(every_s: float, monkeypatch: pytest.MonkeyPatch, terminal: bool = False) -> list[str]:
    monkeypatch.setattr(progress, "LINE_EVERY_S", every_s)
    out = io.StringIO()
    with Bars(console=Console(file=out, width=100, force_terminal=terminal)) as bars:
        task = bars.add_task("sampling", total=3)
        for done in (1, 2, 3):
            bars.update(task, completed=done)
    return [line for line in out.getvalue().split("\n") if "sampling" in line]  # \r alone begins a redrawn bar


def test_a_pipe_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line.split()[-3] for line in told(0.0, monkeypatch)] == ["1/3", "2/3", "3/3"]
    assert [line.split()[-3] for line in told(60.0, monkeypatch)] == ["3/3"]


def test_a_terminal_gets_no_lines_beside_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of a terminal holds the redrawn bar: more often, and no more, when lines would be due."""
    assert len(told(0.0, monkeypatch, terminal=True)) == len(told(60.0, monkeypatch, terminal=True))
