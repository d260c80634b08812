"""The families of reasoning-gym that can be generated here: how each is solved step by step, and its fixed wording.

A family belongs here when its problems have short worked solutions, and when its own scorer neither evaluates code nor
loops on its input: what it judges came through a queue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from common.columns import running_total

Metadata = Mapping[str, Any]


def _all(metadata: Metadata) -> Metadata:
    return metadata


@dataclass(frozen=True)
class Family:
    """`steps` leads from reasoning-gym's metadata to the answer, None where it cannot; `entry` is what its scorer needs
    of them, the same on every day."""

    steps: Callable[[Metadata], str | None]
    entry: Callable[[Metadata], Metadata] = _all


def _terms(metadata: Metadata) -> list[str]:
    return re.findall(r"[+-]?[\d.]+", metadata["expression"].replace(" ", ""))


def _chain_sum(metadata: Metadata) -> str:
    first, *rest = map(int, _terms(metadata))
    return running_total(first, rest)


def _decimal_chain_sum(metadata: Metadata) -> str:
    """The same columns without the points: `0.6-0.2` is worked out as 6 - 2 tenths."""
    terms = _terms(metadata)
    places = max(len(term.partition(".")[2]) for term in terms)
    first, *rest = (int(Decimal(term).scaleb(places)) for term in terms)
    return running_total(first, rest)


def _polygon(metadata: Metadata) -> str:
    known = [-int(angle) for angle in metadata["known_angles"]]
    return running_total(int(metadata["total_interior_sum"]), known)


def _product(metadata: Metadata) -> str:
    """Long multiplication by the second factor's digits: `42*20+42*5=840+210=1050`."""
    left, right = (int(factor) for factor in metadata["expression"].split(" * "))
    places = [int(digit) * 10**place for place, digit in enumerate(reversed(str(right)))]
    places = [place for place in reversed(places) if place] or [0]
    lines = ["+".join(f"{left}*{place}" for place in places), "+".join(str(left * place) for place in places)]
    if len(places) > 1:
        lines.append(str(left * right))
    return "=".join(lines)


def _gcd(metadata: Metadata) -> str:
    """Euclid's remainders, largest first: `98,58,40,18,4,2,0`."""
    larger, smaller = sorted(metadata["numbers"], reverse=True)
    steps = [larger]
    while smaller:
        steps.append(smaller)
        larger, smaller = smaller, larger % smaller
    return ",".join(map(str, [*steps, 0]))


def _clock(metadata: Metadata) -> str | None:
    """Seconds, minutes, hours from the right, each in columns: 15:33 to 19:19 is 79 - 33 and 18 - 15."""
    if metadata["task_type"] not in ("time", "time_seconds"):
        return None
    shown = 2 if metadata["task_type"] == "time" else 3
    start, end = (
        [int(part) for part in metadata[moment].partition(" ")[2].split(":")[:shown]]
        for moment in ("start_time", "end_time")
    )
    steps, borrow = [], 0
    for place in reversed(range(shown)):
        left = end[place] - borrow
        borrow = int(place > 0 and left < start[place])
        steps.append(running_total(left + 60 * borrow, [-start[place]]))
    return ";".join(steps)


def _clock_entry(metadata: Metadata) -> Metadata:
    """Without the moments, which lie on the day on which they were generated."""
    return {"task_type": metadata["task_type"]}


def _complex(metadata: Metadata) -> str:
    """The real parts, then the imaginary ones; a quotient by the conjugate of its divisor."""
    (a, b), (c, d) = (tuple(map(int, metadata[number])) for number in ("num1", "num2"))
    match metadata["operation"]:
        case "+":
            return f"{running_total(a, [c])};{running_total(b, [d])}"
        case "-":
            return f"{running_total(a, [-c])};{running_total(b, [-d])}"
        case "*":
            products = f"{a}*{c}={a * c},{b}*{d}={b * d},{a}*{d}={a * d},{b}*{c}={b * c}"
            return f"{products};{running_total(a * c, [-b * d])};{running_total(a * d, [b * c])}"
    real, imaginary, square = a * c + b * d, b * c - a * d, c * c + d * d
    return f"{real}/{square}={real // square},{imaginary}/{square}={imaginary // square}"


FAMILIES: dict[str, Family] = {
    "chain_sum": Family(_chain_sum),
    "decimal_chain_sum": Family(_decimal_chain_sum),
    "simple_geometry": Family(_polygon),
    "products": Family(_product),
    "gcd": Family(_gcd),
    "time_intervals": Family(_clock, _clock_entry),
    "complex_arithmetic": Family(_complex),
}

PHRASES = (
    "\\boxed{",
    "State the final answer to the following arithmetic problem: ",
    "Solve the following multiplication: ",
    ". Give only the result as your final answer.",
    "Find the Greatest Common Divisor (GCD) of these numbers: ",
    ". Give only the GCD as your final answer.",
    "A convex polygon has ",
    " sides. The measures of the first ",
    " interior angles are: ",
    "Find the measure of the last interior angle.",
    "Consider a convex ",
    "-gon whose first ",
    "Determine the measure of the remaining angle.",
    "Given a convex polygon with ",
    " sides, its first ",
    "What is the measure of the remaining interior angle (in degrees)?",
    "Return only the angle as your answer.Do not give the units in your answer.",
    ".0\u00b0",
    "What is the duration between ",
    "? Please answer in ",
    "Calculate the time difference between ",
    ". Express the result in ",
    "How much time elapsed from ",
    "? Give your answer in ",
    "A meeting started at ",
    ". How long was the meeting? Answer in ",
    "A system operation started at ",
    ". What was the operation duration? Answer in ",
    "A database query started at ",
    ". How long did the query take? Answer in ",
    "A flight departed at ",
    ". How long was the flight? Answer in ",
    "A video call started at ",
    ". How long was the call? Answer in ",
    "A system backup started at ",
    ". What was the total backup duration? Answer in ",
    "A conference call began at ",
    ". How long was the conference? Answer in ",
    " and ended at ",
    " and completed at ",
    " and arrived at ",
    "HH:MM",
    "Add the complex numbers: (",
    "Subtract the complex numbers: (",
    "Multiply the complex numbers: (",
    "Divide the complex numbers: (",
    ".0i)",
    ".0 + ",
    ".0 - ",
)
"""The families' fixed wording, which a character tokenizer may take as single tokens."""
