"""Hostile answers against the sandbox, and signals against its children: see `tests.bench.hostile_inputs`.

One sandbox judges them, a group at a time as a scorer does, while something sends its children SIGSTOP, SIGTERM, SIGINT
and SIGALRM; another judges ordinary answers beside it, a batch now and then. No answer may hold its child longer than
the deadline and GRACE_S; no process may be left, the parent must not grow, and the neighbour must be as quick as beside
ordinary work. HOSTILE_INPUTS sets how many (2,000 take three minutes).
"""

from __future__ import annotations

import itertools
import os
import random
import resource
import select
import signal
import statistics
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self
from unittest import mock

from sympy.external.gmpy import GROUND_TYPES

from common.progress import Bars
from scorer.child_process import ChildProcess, Task
from scorer.fork_server_process import ForkServer
from scorer.sandbox import Item, Sandbox
from scorer.verifier import Verdict
from tests.bench.hostile_inputs import inputs

INPUTS = 100_000
DEADLINE_S, GRACE_S = 0.5, 0.5
HITS = 0.01
"""At least this share of the inputs must reach the deadline, or the attack was none."""
GROWTH_MB = 64
SLOWER = 1.5
"""The neighbour, against what it is beside ordinary answers that keep as many children busy."""
CALM_S = 30.0
EVERY_S = 0.05
GROUP = 256
SIGNALS = (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
SIGNAL_EVERY_S = 2.0


def run() -> dict[str, Any]:
    """`ratio`: the longest that an answer held its child, of the deadline and GRACE_S."""
    if GROUND_TYPES != "gmpy":
        raise SystemExit("sympy computes without gmpy2, and factorials differ with it: pip install -e '.[dev]'")
    count = int(os.environ.get("HOSTILE_INPUTS", INPUTS))
    with mock.patch("scorer.supervisor.ChildProcess", _Timed), _sandbox(1) as neighbour, _sandbox(2) as attacked:
        neighbour.verify([Item("1", r"\boxed{1}")])
        with _Latencies(neighbour) as alone:
            time.sleep(CALM_S)
        with _Latencies(neighbour) as beside_work:
            _work(attacked)
        with _Latencies(neighbour) as beside_attack, _Signals(attacked) as signals:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            started = time.monotonic()
            statuses, hits = _attack(attacked, count)
            seconds = time.monotonic() - started
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    left, ratio = _left(), _Timed.longest / (DEADLINE_S + GRACE_S)
    calm, hostile = beside_work.quantiles(), beside_attack.quantiles()
    detail = {
        "inputs": count,
        "seconds": round(seconds),
        "statuses": dict(statuses.most_common()),
        "reached_the_deadline": dict(hits.most_common()),
        "children": _Timed.started,
        "signals": dict(signals.sent),
        "longest_s": round(_Timed.longest, 3),
        "longest_death_s": round(_Timed.longest_death, 3),
        "left": left,
        "parent_grew_mb": round(grown, 1),
        "neighbour_p50_p99_ms": {"alone": alone.quantiles(), "beside work": calm, "beside the attack": hostile},
    }
    as_quick = all(ours <= SLOWER * theirs for ours, theirs in zip(hostile, calm, strict=True))
    holds = ratio <= 1 and not left and grown < GROWTH_MB and as_quick and hits.total() >= HITS * count
    return {"name": "hostile", "ratio": round(ratio, 3), "target": 1, "holds": holds, "detail": detail}


def _sandbox(children: int) -> Sandbox:
    return Sandbox(children, deadline_s=DEADLINE_S, memory_mb=1024, max_chars=4000, tasks_per_child=20_000)


class _Timed(ChildProcess):
    """Notes how long one answer held its child: until the reply, or until its thread may have another child.

    The death of the old one is timed apart: from the kill until the kernel has taken it down.
    """

    longest = longest_death = 0.0
    started = 0

    def __init__(self, server: ForkServer) -> None:
        super().__init__(server)
        self._since: float | None = None
        self._missing = 0
        _Timed.started += 1

    def send(self, tasks: list[Task], deadline_s: float) -> None:
        self._since = time.monotonic()
        self._missing = len(tasks)
        super().send(tasks, deadline_s)

    def receive(self, deadline_s: float) -> Verdict:
        verdict = super().receive(deadline_s)
        self._missing -= 1
        self._note()
        return verdict

    def end(self) -> None:
        ended, pidfd = select.poll(), os.dup(self._pidfd)
        ended.register(pidfd, select.POLLIN)
        killed = time.monotonic()
        super().end()
        self._note()
        ended.poll()
        _Timed.longest_death = max(_Timed.longest_death, time.monotonic() - killed)
        os.close(pidfd)

    def _note(self) -> None:
        now = time.monotonic()
        if self._since is not None:
            _Timed.longest = max(_Timed.longest, now - self._since)
        self._since = now if self._missing else None


def _attack(sandbox: Sandbox, count: int) -> tuple[Counter[str], Counter[str]]:
    """Statuses, and the kinds of what reached the deadline."""
    statuses, hits = Counter[str](), Counter[str]()
    everything = inputs(count)
    with Bars() as bars:
        task = bars.add_task("hostile answers", total=count)
        while batch := list(itertools.islice(everything, GROUP)):
            for (kind, _), verdict in zip(batch, sandbox.verify([item for _, item in batch]), strict=True):
                statuses[verdict.status] += 1
                hits[kind] += verdict.status == "timeout"
            bars.update(task, advance=len(batch), description=f"longest {_Timed.longest:.2f} s")
    return statuses, hits


def _work(sandbox: Sandbox) -> None:
    """Ordinary answers that keep its children as busy as hostile ones do, for CALM_S."""
    end = time.monotonic() + CALM_S
    for number in itertools.count():
        if time.monotonic() > end:
            return
        sandbox.verify(
            [Item(f"x^2+{number}", rf"\boxed{{(x+{n})^2 - {2 * n}x + {number}}}") for n in range(GROUP // 8)]
        )


class _Beside(threading.Thread):
    """Does something to a sandbox now and then, as long as the block lasts."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__()
        self.sandbox = sandbox
        self.over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


class _Signals(_Beside):
    """Sends signals to its children."""

    def run(self) -> None:
        self.sent = Counter[str]()
        dice = random.Random(0)
        while not self.over.wait(dice.uniform(0, 2 * SIGNAL_EVERY_S)):
            number = dice.choice(SIGNALS)
            for pid in self.sandbox.child_pids():
                try:
                    os.kill(pid, number)
                    self.sent[number.name] += 1
                except ProcessLookupError:
                    pass  # it has ended meanwhile


class _Latencies(_Beside):
    """Times a batch of ordinary answers in it."""

    def run(self) -> None:
        self._taken: list[float] = []
        while not self.over.wait(EVERY_S):
            number = 16 * len(self._taken)
            items = [Item(str(number), rf"so \boxed{{\frac{{{2 * number + n}}}{{2}}}}") for n in range(16)]
            started = time.monotonic()
            self.sandbox.verify(items)
            self._taken.append((time.monotonic() - started) * 1e3)

    def quantiles(self) -> tuple[float, float]:
        """Median and 99th percentile, milliseconds a batch."""
        hundredths = statistics.quantiles(self._taken, n=100)
        return round(hundredths[49], 2), round(hundredths[98], 2)


def _left() -> list[int]:
    """Fork servers of this process that have not ended, and their children."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_text().split("\0") if folder.name.isdigit() else []
        except OSError:
            continue
        if "scorer.fork_server" in words and str(os.getpid()) in words:
            found.append(int(folder.name))
    return found
