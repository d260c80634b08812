"""What `hero top` makes of what it sees; what it sees a stranger may have written."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from deploy.monitor.group_page import group_page
from deploy.monitor.overview import WIDTH, overview, page, seconds
from deploy.monitor.snapshot import Process, Snapshot, Stream, books_of, processes_of
from deploy.monitor.spark import BARS, PLAIN, sparkline

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e[red]‮\r"


def shown(*parts: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, highlight=False, markup=False)
    console.print(page(*parts))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert not any(c in text for c in "\x1b\x07\r\u202e"), "nothing steers the terminal"
    assert max(map(len, text.splitlines())) <= WIDTH
    return str(text)


def snapshot(**changes: Any) -> Snapshot:
    known: dict[str, Any] = {
        "run": "math-1",
        "broker": "redis://head:6379/0",
        "over": False,
        "policy": (3, 122),
        "streams": [Stream("tickets", 20, 4, 16, 1.25), Stream("eval:tickets", 0, 0, 0, None)],
        "processes": [],
        "shadows": [],
        "dead_letters": 0,
        "memory_share": 0.0,
        "books": {"issued": 30, "in_flight": 20, "trained": 8, "dropped": 2, "dead_lettered": 0},
        "steps": [],
    }
    return Snapshot(**known | changes)


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, BARS),
        ([0.0, 0.0, 7.0, 7.0], 2, "▁█"),
        ([5.0, 5.0, 5.0], 9, "▅▅▅"),
        ([1.0, None, 2.0], 3, "▁ █"),
        ([None, None], 2, "  "),
        ([float("nan"), 1.0, float("inf"), 3.0], 4, " ▁ █"),
        ([], 5, ""),
        ([1.0], 0, ""),
    ],
)
def test_sparkline(values: list[float | None], width: int, line: str) -> None:
    assert sparkline(values, width) == line


def test_a_terminal_without_bars_gets_plain_ones() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.04, "0.0 s"), (12.4, "12 s"), (99.9, "100 s"), (200, "3:20"), (7500, "2h05")]
)
def test_seconds(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_books_that_do_not_balance_are_said_to() -> None:
    assert "BALANCE" not in shown(*overview(snapshot()))
    wrong = snapshot(books={"issued": 31, "in_flight": 20, "trained": 8, "dropped": 2, "dead_lettered": 0})
    assert "THE BOOKS DO NOT BALANCE" in shown(*overview(wrong))
    assert "no learner has been heard of" in shown(*overview(snapshot(books=None)))


def test_an_upgrade_under_way_is_seen() -> None:
    def beside(*codes: str) -> str:
        found = [Process(f"scorer-a-{code}", "scorer", "a", 1.0, 0, 0.0, {"code": code}) for code in codes]
        return shown(*overview(snapshot(processes=found)))

    assert "releases: 0.1.0 (2), 0.2.0 (1)" in beside("0.1.0", "0.2.0", "0.1.0")
    assert "releases" not in beside("0.1.0", "0.1.0")
    assert "releases" in beside("0.1.0", HOSTILE)


def test_a_lag_that_the_server_cannot_tell_is_unknown_and_not_none() -> None:
    streams = [Stream("rollouts", 7, None, 2, 0.5)]
    [line] = [line for line in shown(*overview(snapshot(streams=streams))).splitlines() if line.startswith("rollouts")]
    assert line.split()[:4] == ["rollouts", "7", "?", "2"]


def test_the_last_learner_keeps_the_books() -> None:
    beats = {
        "learner-old": {"role": "learner", "issued": 5, "heard_s": 40.0},
        "learner-new": {"role": "learner", "issued": 9, "trained": 8, "eval_issued": 2, "heard_s": 0.5, "step": 3},
        "actor": {"role": "actor", "heard_s": 0.1},
    }
    assert books_of(beats) == {"issued": 9, "trained": 8, "eval_issued": 2}


def test_who_holds_something_without_a_word_is_listed() -> None:
    beats = {"actor-far-away-77-0a0b0c": {"role": "actor", "step": 7, "heard_s": 0.5}}
    held = [
        {"name": "actor-far-away-77-0a0b0c", "pending": 3, "oldest_s": 1.5},
        {"name": "scorer-b-12-ffffff", "pending": 2, "oldest_s": 60.0},
        {"name": "scorer-idle-12-eeeeee", "pending": 0, "oldest_s": 0.0},
    ]
    actor, scorer = processes_of(beats, held)
    assert (actor.host, actor.version, actor.pending, actor.oldest_s) == ("far-away", 7, 3, 1.5)
    assert (scorer.role, scorer.host, scorer.heard_s, scorer.version) == ("scorer", "b", None, None)
    text = shown(*overview(snapshot(processes=[actor, scorer])))
    assert "never" in text and "1:00" not in text.split("never")[1]


def test_who_waits_says_for_what() -> None:
    state = {"role": "scorer", "waits_for": "rollouts", "waits_s": 200.0, "waits_until": "actors deliver"}
    silent = Process("scorer-a-1-abcdef", "scorer", "a", 40.0, 0, 0.0, state)
    text = shown(*overview(snapshot(processes=[silent])))
    assert "scorer abcdef waits 4:00 for rollouts: until actors deliver" in text
    assert "SILENT" in text


def test_hostile_heartbeats_steps_and_groups_are_shown_as_they_are() -> None:
    state = {"role": HOSTILE, "waits_for": HOSTILE, "waits_until": HOSTILE, "step": HOSTILE}
    strange = Process(HOSTILE, HOSTILE, HOSTILE, 0.1, 1, 0.1, state)
    steps = [{"step": 1, "reward_mean": HOSTILE, "status_\x1b[2J": 3, "time": 1e999}, {"step": 2, "accuracy": True}]
    shadows = [{"stage": "tickets", "name": HOSTILE, "lag": 3, "pending": 0, "lost": 0}]
    assert "\\x1b" in shown(*overview(snapshot(processes=[strange], steps=steps, shadows=shadows)))
    for group in ({}, {"completions": 7}, {"completions": [3, {}], "question": [HOSTILE]}):
        shown(*group_page(group, 1, 1))
    made = [{"text": HOSTILE * 9, "status": HOSTILE, "extracted": HOSTILE, "rule": HOSTILE, "reward": HOSTILE}]
    text = shown(*group_page({"question": HOSTILE, "gold": HOSTILE, "id": HOSTILE, "completions": made}, 1, 1))
    assert "owned" in text and "[red]" in text


def test_a_group_shows_what_its_completions_got() -> None:
    made = [
        {"text": "2 + 2\nis \\boxed{4}", "status": "correct", "extracted": "4", "rule": "same text", "rm_score": 1.25,
         "r_hat": 0.95, "reward": 2.375, "advantage": 0.5, "tokens": 9, "finish": "stop"},
        {"text": "five", "status": "no_answer", "extracted": None, "rule": None, "rm_score": None,
         "r_hat": 0.0, "reward": 0.0, "advantage": -0.5, "tokens": 3, "finish": "length"},
    ]  # fmt: skip
    group = {"id": 4, "outcome": "trained", "step": 7, "question": "2 + 2?", "gold": "4", "completions": made}
    text = shown(*group_page(group | {"mode": "hero", "weight": 2.5, "gated": True}, 2, 64))
    assert "group 2 of 64" in text and "ticket 4, trained at step 7" in text and "not trusted" in text
    for words in ("1. correct", "2. no_answer", "2.375", "-> 4  (same text)  9 tokens, stop", "-> -", "is \\boxed{4}"):
        assert words in text
