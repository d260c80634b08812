"""What more children bring: the same answers in a sandbox of one child, of two and of four.

CPU-seconds per answer, of the parent and all children, must not rise with their number: then they share nothing that
they wait for, and as many cores judge as many times faster. The wall clock of one and two children says the same
where two cores are free; detail.speedup tells it, for answers that sympy compares and for those that need no sympy.
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
ROUNDS = 7
CHILDREN = (1, 2, 4)
SIZE = 192


def run() -> dict[str, Any]:
    """`ratio`: CPU-seconds per answer with one child / with more, where it is lowest."""
    taken: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        sandboxes = [stack.enter_context(_sandbox(children)) for children in CHILDREN]
        for turn in range(ROUNDS + 1):
            work = {"sympy": roots(turn), "plain": answers("integers", turn)}
            for sandbox in sandboxes:
                for kind, items in work.items():
                    measured = _measured(sandbox, items)
                    if turn:  # the first is for first calls
                        taken.setdefault((kind, sandbox.children), []).append(measured)
    cpu = {key: statistics.median(pair[0] for pair in pairs) for key, pairs in taken.items()}
    wall = {key: statistics.median(pair[1] for pair in pairs) for key, pairs in taken.items()}
    ratio = min(cpu[kind, 1] / cpu[kind, children] for kind, children in cpu)
    detail = {
        "cpu_ms_per_answer": {f"{kind}, {children}": round(1e3 * s, 3) for (kind, children), s in cpu.items()},
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


def _measured(sandbox: Sandbox, items: Sequence[Item]) -> tuple[float, float]:
    """CPU-seconds and wall seconds per answer."""
    sandbox.check_golds([str(n) for n in range(sandbox.children)])  # the children are up
    before, started = _cpu(sandbox), time.perf_counter()
    sandbox.verify(items)
    wall = time.perf_counter() - started
    return (_cpu(sandbox) - before) / len(items), wall / len(items)


def _cpu(sandbox: Sandbox) -> float:
    return time.process_time() + sum(cpu_seconds(pid) for pid in sandbox.child_pids())
