"""Models compared on the same problems: each problem is its own control."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from common import accuracy
from common.accuracy import Estimate
from deploy.evaluation.rows import Result, right

COMPARED = ("greedy", "pass@1")


def compared(models: Mapping[str, Mapping[str, Result]]) -> list[dict[str, Any]]:
    """A line for each pair of models, figure and set; of several sets one for their mean, whose "set" is null.

    {"models": [first, second], "figure", "set", "problems", "difference": second - first, "low", "high", "p"}. Sets
    whose problems are not the same for both are left out.
    """
    return [
        {"models": [first, second], "figure": figure} | line
        for (first, before), (second, after) in combinations(models.items(), 2)
        for figure in COMPARED
        for line in _lines(before, after, figure)
    ]


@dataclass(frozen=True)
class _Pair:
    set: str
    difference: Estimate
    steps: list[int]
    """Each problem's difference in the unit."""
    unit: float
    """What a step adds to the mean."""


def _lines(before: Mapping[str, Result], after: Mapping[str, Result], figure: str) -> Iterator[dict[str, Any]]:
    both = [name for name in before if name in after]
    pairs = [
        _pair(name, _counts(before[name], figure), _counts(after[name], figure))
        for name in both
        if before[name].asked.set_digest == after[name].asked.set_digest
    ]
    for pair in pairs:
        yield _line(pair.set, pair.difference, accuracy.paired_p(pair.steps), len(pair.steps))
    if len(pairs) > 1:
        p = accuracy.macro_p([pair.steps for pair in pairs], [pair.unit for pair in pairs])
        yield _line(
            None, accuracy.macro([pair.difference for pair in pairs]), p, sum(len(pair.steps) for pair in pairs)
        )


def _counts(result: Result, figure: str) -> tuple[list[int], int]:
    """Right completions of each problem, of how many."""
    if figure == "greedy":
        return [int(right(row["greedy"])) for row in result.problems], 1
    return [sum(map(right, row["samples"])) for row in result.problems], result.asked.samples


def _pair(name: str, before: tuple[Sequence[int], int], after: tuple[Sequence[int], int]) -> _Pair:
    (a, n), (b, m) = before, after
    per = math.lcm(n, m)
    difference = accuracy.difference([x / n for x in a], [y / m for y in b], (n, m))
    steps = [y * (per // m) - x * (per // n) for x, y in zip(a, b, strict=True)]
    return _Pair(name, difference, steps, 1 / (per * len(steps)))


def _line(name: str | None, difference: Estimate, p: float, problems: int) -> dict[str, Any]:
    found = dataclasses.asdict(difference)
    return {"set": name, "problems": problems, "difference": found.pop("value"), **found, "p": p}
