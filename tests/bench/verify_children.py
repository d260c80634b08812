"""What more children bring: the same answers in a sandbox of one child, of two and of four.

CPU-seconds per answer, of the parent and all children, must not rise with their number: then they share nothing that
they wait for, and as many cores judge as many times faster, up to the parent's share: that is one thread. The wall
clock says the same where the cores are free (detail.speedup).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from scorer.sandbox import Item, Sandbox
from tests.bench.verify import answers, cpu_seconds

TARGET = 0.9
ROUNDS = 9
CHILDREN = (1, 2, 4)
SIZE = 192
PLAIN = ("integers", "fractions", "short chain of thought")


def run() -> dict[str, Any]:
    """`ratio`: CPU-seconds per answer with one child / with more, where it is lowest."""
    taken: dict[tuple[str, int], list[Measured]] = {}
    with ExitStack() as stack:
        sandboxes = [stack.enter_context(_sandbox(children)) for children in CHILDREN]
        for turn in range(ROUNDS + 1):
            work = {"sympy": roots(turn), "plain": [item for kind in PLAIN for item in answers(kind, turn)]}
            for sandbox in sandboxes[turn % 3 :] + sandboxes[: turn % 3]:
                for kind, items in work.items():
                    measured = _measured(sandbox, items)
                    if turn:  # the first is for first calls
                        taken.setdefault((kind, sandbox.children), []).append(measured)
    cpu, parent, wall = (
        {key: statistics.median(s[part] for s in rounds) for key, rounds in taken.items()} for part in range(3)
    )
    ratio = min(
        statistics.median(one[0] / more[0] for one, more in zip(taken[kind, 1], rounds, strict=True))
        for (kind, _), rounds in taken.items()
    )
    detail = {
        "cpu_ms_per_answer": {f"{kind}, {children}": round(1e3 * s, 3) for (kind, children), s in cpu.items()},
        "parents_share": {f"{kind}, {n}": round(parent[kind, n] / cpu[kind, n], 3) for kind, n in cpu},
        "speedup": {f"{kind}, {n}": round(wall[kind, 1] / wall[kind, n], 2) for kind, n in wall if n > 1},
    }
    return {
        "name": "verify_children",
        "ratio": round(ratio, 3),
        "target": TARGET,
        "holds": ratio >= TARGET,
        "detail": detail,
    }


def roots(seed: int) -> list[Item]:
    """Answers that sympy has to compare, half of them right."""
    numbers = range(2 + seed * SIZE, 2 + (seed + 1) * SIZE)
    return [Item(rf"\sqrt{{{n}}}", rf"\boxed{{\frac{{{n + n % 2}}}{{\sqrt{{{n}}}}}}}") for n in numbers]


def _sandbox(children: int) -> Sandbox:
    return Sandbox(children, deadline_s=10.0, memory_mb=1024, max_chars=4000, tasks_per_child=10**9)


Measured = tuple[float, float, float]
"""Seconds per answer: CPU of all, CPU of the parent, wall."""


def _measured(sandbox: Sandbox, items: Sequence[Item]) -> Measured:
    sandbox.check_golds([str(n) for n in range(sandbox.children)])  # the children are up
    pids = sandbox.child_pids()
    children, parent, started = sum(map(cpu_seconds, pids)), time.process_time(), time.perf_counter()
    sandbox.verify(items)
    wall, parent = time.perf_counter() - started, time.process_time() - parent
    children = sum(map(cpu_seconds, pids)) - children
    return (children + parent) / len(items), parent / len(items), wall / len(items)
