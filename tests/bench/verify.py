"""Verification per core: the sandbox with one child against a bare math-verify loop in one child process.

Both see the same completions and judge them by the same calls. The bare loop has what a plain script would
have: no deadline, no cap, no extraction beyond math-verify's own. Rounds alternate, so that what else runs on
the machine hits both. Per core means per CPU-second of all processes that take part, the sandbox's parent
included; the wall clock of one child is measured beside it and the worse of the two counts.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scorer.sandbox import Item, Sandbox

TARGET = 0.9
ROUNDS = 7
SIZES = {"integers": 600, "fractions": 300, "intervals": 60, "short chain of thought": 240}
_ROOT = Path(__file__).resolve().parents[2]


def run() -> dict[str, Any]:
    """`ratio`: answers per second through the sandbox / bare, of the kind of answer where it is lowest."""
    ratios: dict[str, list[tuple[float, float]]] = {kind: [] for kind in SIZES}
    rates: dict[str, float] = {}
    bare = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.verify"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    try:
        with Sandbox(1, deadline_s=10.0, memory_mb=1024, max_chars=4000, tasks_per_child=10**9) as sandbox:
            for kind in SIZES:  # imports and first calls
                _sandboxed(sandbox, answers(kind, 0)[:20]), _bare(bare, answers(kind, 0)[:20])
            for turn in range(1, ROUNDS + 1):
                for kind in SIZES:
                    items = answers(kind, turn)
                    ours, theirs = _sandboxed(sandbox, items), _bare(bare, items)
                    if ours[0] != theirs[0]:
                        raise AssertionError(f"{kind}: {ours[0]} of {len(items)} correct, bare {theirs[0]}")
                    ratios[kind].append((theirs[1] / ours[1], theirs[2] / ours[2]))
                    rates[kind] = len(items) / ours[1]
    finally:
        bare.communicate(timeout=60)
    cpu = {kind: statistics.median(pair[0] for pair in pairs) for kind, pairs in ratios.items()}
    wall = {kind: statistics.median(pair[1] for pair in pairs) for kind, pairs in ratios.items()}
    ratio = min(*cpu.values(), *wall.values())
    each = ", ".join(f"{k}: {cpu[k]:.2f} CPU, {wall[k]:.2f} wall, {rates[k]:.0f}/CPU-s" for k in SIZES)
    detail = f"sandbox / bare, median of {ROUNDS} rounds; {each}"
    return {"name": "verify", "ratio": round(ratio, 3), "target": TARGET, "holds": ratio >= TARGET, "detail": detail}


def answers(kind: str, seed: int) -> list[Item]:
    """Groups of 8 different answers to one gold answer, half of them right; nothing to gain by not repeating."""
    rng = random.Random(f"{kind}{seed}")
    items: list[Item] = []
    while len(items) < SIZES[kind]:
        a, b = rng.randint(2, 9999), rng.randint(2, 999)
        for way in range(8):
            off = 0 if way % 2 else way + 1
            if kind == "integers":
                gold, text = str(a), rf"\boxed{{{a + off}" + "." * (way > 0) + "0" * way + "}"
            elif kind == "fractions":
                gold, text = rf"\frac{{{a}}}{{{b}}}", rf"\boxed{{\frac{{{(a + off) * (way + 1)}}}{{{b * (way + 1)}}}}}"
            elif kind == "intervals":
                gold, text = f"[{b},{a + b})", rf"\boxed{{[{b},{a + b + off}.{'0' * (way + 1)})}}"
            else:
                steps = "\n".join(f"Step {n}: {a} + {n} = ${a + n}$, so we keep {a + n}." for n in range(way + 3))
                gold, text = str(a), rf"{steps}" + "\n" + rf"The answer is \boxed{{{a + off}.{'0' * (way + 1)}}}."
            items.append(Item(gold, text))
    return items


Measured = tuple[int, float, float]
"""(correct answers, CPU-seconds, wall seconds)"""


def _sandboxed(sandbox: Sandbox, items: Sequence[Item]) -> Measured:
    sandbox.check_golds(["1"])  # the child is up
    (pid,) = sandbox.child_pids()
    cpu, wall = time.process_time() + cpu_seconds(pid), time.perf_counter()
    verdicts = sandbox.verify(items)
    wall = time.perf_counter() - wall
    return sum(verdict.correct for verdict in verdicts), time.process_time() + cpu_seconds(pid) - cpu, wall


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


def _bare(process: subprocess.Popen[str], items: Sequence[Item]) -> Measured:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps([(item.gold, item.completion) for item in items]) + "\n")
    process.stdin.flush()
    correct, cpu, wall = json.loads(process.stdout.readline())
    return correct, cpu, wall


def _serve() -> None:
    """The bare loop; one line of answers in, one line of figures out."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    gold_targets, targets = [LatexExtractionConfig()], [LatexExtractionConfig(), ExprExtractionConfig()]
    for line in sys.stdin:
        items = json.loads(line)
        cpu, wall, correct = time.process_time(), time.perf_counter(), 0
        for gold, completion in items:
            right = parse(f"\\boxed{{{gold}}}", gold_targets, parsing_timeout=None)
            given = parse(completion, targets, parsing_timeout=None)
            correct += verify(right, given, timeout_seconds=None)
        print(json.dumps([correct, time.process_time() - cpu, time.perf_counter() - wall]), flush=True)


if __name__ == "__main__":
    _serve()
