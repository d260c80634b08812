"""Hostile answers against the sandbox: fuzzed LaTeX, towers, factorials, nesting, megabytes, control characters.

One child judges them, one after the other, while another judges ordinary answers beside it. No attempt may hold its
child longer than the deadline and GRACE_S; no child may be left, the parent must not grow, and the neighbour must judge
as many answers a second as it does alone. HOSTILE_INPUTS sets how many (1,500 take three minutes); one in a
hundred is made to hang.
"""

from __future__ import annotations

import os
import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from common.progress import Bars
from scorer.child_process import ChildProcess
from scorer.sandbox import Item, Sandbox
from scorer.verifier import Verdict

INPUTS = 100_000
DEADLINE_S, GRACE_S = 0.5, 0.5
GROWTH_MB = 64
SLOWER = 2.0
_TOKENS = (
    r"\frac { } ( ) [ ] \{ \} ^ _ \sqrt \pm , ; : = < > \le \in \cup \text{ \begin{pmatrix} \end{pmatrix} & \\ \boxed{ "
    r"\left \right . ! ? % \% $ | x y n e pi \pi \infty 1 2 0 9 10 99 0.5 1e9 and or not cm km ^\circ \sum \int \log"
)
_HANGS = (
    r"9^{9^{9^{9}}}", r"1000000000!", r"\binom{10^{9}}{5 \cdot 10^{8}}", r"10^{10^{10^{10}}}", r"(10^{9})!!",
    r"\sum_{n=1}^{10^{12}} \frac{1}{n^{2}}", r"(x+1)^{100000} - (x+2)^{99999}", r"\prod_{k=1}^{10^{9}} k",
)  # fmt: skip


def inputs(count: int, seed: int = 0) -> Iterator[str]:
    """Completions, most of them in a box; every hundredth is one that never ends."""
    dice, tokens = random.Random(seed), _TOKENS.split()
    for number in range(count):
        if number % 100 == 0:
            text = f"{dice.choice(_HANGS)} + {number}"
        elif number % 100 == 1:
            text = dice.choice(("(", "{", r"\frac{", r"\text{a}", "1,", r"\{", "-", r"\pm ")) * dice.choice((500, 3900))
        elif number % 1000 == 2:
            text = chr(dice.randrange(32, 0x2FFF)) * 2**20
        elif number % 10 == 3:
            text = "".join(chr(dice.randrange(0, 0x3000)) for _ in range(dice.randrange(1, 300)))
        else:
            text = " ".join(dice.choices(tokens, k=dice.randrange(1, 40)))
        yield rf"\boxed{{{text}}}" if dice.random() < 0.9 else text


def run() -> dict[str, Any]:
    """`ratio`: the longest that an answer held its child, of the deadline and GRACE_S."""
    count = int(os.environ.get("HOSTILE_INPUTS", INPUTS))
    with _sandbox() as neighbour:
        alone = _rate(neighbour, threading.Event(), seconds=10.0)
        with _sandbox() as attacked:
            stop, beside = threading.Event(), []
            thread = threading.Thread(target=lambda: beside.append(_rate(neighbour, stop)))
            thread.start()
            attacked.verify([Item("42", r"\boxed{42}")])  # its own child; later ones are timed
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            statuses, longest = _attack(attacked, count)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            stop.set()
            thread.join()
            pids = attacked.child_pids() + neighbour.child_pids()
    left = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    ratio, slower = longest / (DEADLINE_S + GRACE_S), alone / beside[0]
    detail = {
        "inputs": count,
        "statuses": dict(statuses.most_common()),
        "longest_s": round(longest, 2),
        "children_left": len(left),
        "parent_grew_mb": round(grown, 1),
        "neighbour_slower": round(slower, 2),
    }
    holds = ratio <= 1 and not left and grown < GROWTH_MB and slower < SLOWER
    return {"name": "hostile", "ratio": round(ratio, 3), "target": 1, "holds": holds, "detail": detail}


def _sandbox() -> Sandbox:
    return Sandbox(1, deadline_s=DEADLINE_S, memory_mb=1024, max_chars=4000, tasks_per_child=20_000)


class _Timed(ChildProcess):
    """Notes how long one attempt held its child: until the reply, or until it was given up."""

    longest = 0.0

    def receive(self, deadline_s: float) -> Verdict:
        started = time.monotonic()
        try:
            return super().receive(deadline_s)
        finally:
            _Timed.longest = max(_Timed.longest, time.monotonic() - started)


def _attack(sandbox: Sandbox, count: int) -> tuple[Counter[str], float]:
    """Statuses, and the longest time that one attempt held its child."""
    statuses = Counter[str]()
    with Bars() as bars, mock.patch("scorer.sandbox.ChildProcess", _Timed):
        task = bars.add_task("hostile answers", total=count)
        for text in inputs(count):
            [verdict] = sandbox.verify([Item("42", text)])
            statuses[verdict.status] += 1
            bars.advance(task)
    return statuses, _Timed.longest


def _rate(sandbox: Sandbox, stop: threading.Event, seconds: float | None = None) -> float:
    """Ordinary answers judged a second, until told to stop or for so many seconds."""
    sandbox.verify([Item("1", r"\boxed{1}")])
    judged, started = 0, time.monotonic()
    while not stop.is_set() and (seconds is None or time.monotonic() - started < seconds):
        sandbox.verify([Item(str(judged), rf"so \boxed{{\frac{{{2 * judged + n}}}{{2}}}}") for n in range(16)])
        judged += 16
    return judged / (time.monotonic() - started)
