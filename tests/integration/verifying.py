"""Sandboxes, and what the tests see of their processes."""

from __future__ import annotations

from pathlib import Path

from scorer.sandbox import Item, Sandbox

TOWER = r"\boxed{9^{9^{9^9}}}"


def make(children=1, deadline_s=1.0, tasks_per_child=1000, **options) -> Sandbox:
    options = {"memory_mb": 256, "max_chars": 4000} | options
    return Sandbox(children, deadline_s, tasks_per_child=tasks_per_child, **options)


def statuses(sandbox, gold, *completions):
    return [verdict.status for verdict in sandbox.verify([Item(gold, text) for text in completions])]


def is_running(pid: int) -> bool:
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    """Of a child: its fork server."""
    return int(_stat(pid)[1])


def started_by(pid: int) -> list[int]:
    """Children of a process, whichever of its threads started them; those that nobody has reaped are among them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:  # that thread has ended meanwhile
            continue
    return found


def user_ticks(pid: int) -> int:
    """CPU time of a process, in hundredths of a second."""
    return int(_stat(pid)[11])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
