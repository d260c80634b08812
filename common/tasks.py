"""Procedural problems with an exact judge: families of reasoning-gym, worked solutions, the scorer.

A problem is determined by (family, its configuration, seed, index). reasoning-gym itself draws
item i from `Random(seed + i)`, so neighbouring seeds would share items: the seed is hashed with the
family's name first. Two sets of problems are disjoint by question text, not by luck: whoever needs
that passes the earlier set's questions as `exclude`; no set repeats a question either.

`judge` reads metadata and answers that came through a queue: only families listed here are judged
(their scorers neither evaluate code nor loop on their input), and all input is bounded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import cycle
from typing import Any

from common.columns import running_total
from common.errors import ConfigError, DataError

MAX_ANSWER_CHARS = 200
MAX_META_CHARS = 4_000
_ITEMS_PER_DATASET = 1_000_000_000  # reasoning-gym wants a size; items are made on access
_MAX_TRIES_PER_PROBLEM = 200  # so many repeats in a row: the family has no more new problems


@dataclass(frozen=True)
class Problem:
    """One prompt with its gold answer.

    Example: `Problem("... 12 + 30 =", "42", "2+0=02,1+3+0=04 \\boxed{42}", {"task": "chain_sum", ...})`.
    """

    question: str
    answer: str
    solution: str | None
    """Worked steps ending in `\\boxed{answer}`; None where the family has none."""
    meta: dict[str, str] = field(default_factory=dict)
    """What `judge` needs: `task` (the family) and `entry` (JSON of reasoning-gym's metadata)."""


def generate(
    families: Mapping[str, Mapping[str, Any]],
    count: int,
    seed: int,
    exclude: Collection[str] = (),
) -> list[Problem]:
    """`count` distinct problems, the families in turn; none whose question is in `exclude`.

    `families` maps a family's name to its reasoning-gym configuration. Raises ConfigError for an
    unknown family or configuration, DataError when a family has no more new problems.
    """
    if not families:
        raise ConfigError("no task family is given; name at least one of " + ", ".join(FAMILIES))
    streams = cycle([_stream(name, config, seed) for name, config in families.items()])
    seen = set(exclude)
    problems: list[Problem] = []
    while len(problems) < count:
        stream = next(streams)
        for _ in range(_MAX_TRIES_PER_PROBLEM):
            problem = next(stream)
            if problem.question not in seen:
                break
        else:
            raise DataError(
                f"{problem.meta['task']}: {_MAX_TRIES_PER_PROBLEM} problems in a row were seen "
                f"before, after {len(problems)} of {count}; ask for fewer or widen the family's "
                "configuration"
            )
        seen.add(problem.question)
        problems.append(problem)
    return problems


def _stream(family: str, config: Mapping[str, Any], seed: int) -> Iterator[Problem]:
    if family not in FAMILIES:
        raise ConfigError(f"unknown task family {family!r}; known are " + ", ".join(FAMILIES))
    own_seed = int.from_bytes(hashlib.sha256(f"{family}/{seed}".encode()).digest()[:6], "big")
    settings = {**config, "seed": own_seed, "size": _ITEMS_PER_DATASET}
    try:
        dataset = reasoning_gym().create_dataset(family, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"{family}: reasoning-gym refuses {dict(config)}: {error}; correct the family's configuration"
        ) from error
    for index in range(_ITEMS_PER_DATASET):
        item = dataset[index]
        meta = {"task": family, "entry": json.dumps(item["metadata"], separators=(",", ":"))}
        solution = worked_solution(family, item["metadata"], item["answer"])
        yield Problem(item["question"], item["answer"], solution, meta)


@functools.cache
def reasoning_gym() -> Any:
    """The package, imported when it is needed: that takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of what it imports, when that is compiled
        import reasoning_gym as package
    return package


def worked_solution(family: str, metadata: Mapping[str, Any], answer: str) -> str:
    """Compact steps that lead to the answer, e.g. `2+0=02,1+3+0=04 \\boxed{42}` for 12 + 30."""
    return f"{FAMILIES[family](metadata)} \\boxed{{{answer}}}"


def _terms(metadata: Mapping[str, Any]) -> list[str]:
    return re.findall(r"[+-]?[\d.]+", metadata["expression"].replace(" ", ""))


def _chain_sum_steps(metadata: Mapping[str, Any]) -> str:
    first, *rest = map(int, _terms(metadata))
    return running_total(first, rest)


def _decimal_chain_sum_steps(metadata: Mapping[str, Any]) -> str:
    """The same columns without the points: `0.6-0.2` is worked out as 6 - 2 tenths."""
    terms = _terms(metadata)
    places = max(len(term.partition(".")[2]) for term in terms)
    first, *rest = (int(Decimal(term).scaleb(places)) for term in terms)
    return running_total(first, rest)


def _polygon_steps(metadata: Mapping[str, Any]) -> str:
    known = [-int(angle) for angle in metadata["known_angles"]]
    return running_total(int(metadata["total_interior_sum"]), known)


def _product_steps(metadata: Mapping[str, Any]) -> str:
    """Long multiplication by the second factor's digits: `42*20+42*5=840+210=1050`."""
    left, right = (int(factor) for factor in metadata["expression"].split(" * "))
    places = [int(digit) * 10**place for place, digit in enumerate(reversed(str(right)))]
    places = [place for place in reversed(places) if place] or [0]
    lines = ["+".join(f"{left}*{place}" for place in places), "+".join(str(left * place) for place in places)]
    if len(places) > 1:
        lines.append(str(left * right))
    return "=".join(lines)


def _gcd_steps(metadata: Mapping[str, Any]) -> str:
    """Euclid's remainders, largest first: `98,58,40,18,4,2,0`."""
    larger, smaller = sorted(metadata["numbers"], reverse=True)
    steps = [larger]
    while smaller:
        steps.append(smaller)
        larger, smaller = smaller, larger % smaller
    return ",".join(map(str, [*steps, 0]))


FAMILIES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "chain_sum": _chain_sum_steps,
    "decimal_chain_sum": _decimal_chain_sum_steps,
    "simple_geometry": _polygon_steps,
    "products": _product_steps,
    "gcd": _gcd_steps,
}
"""Families that can be generated, solved step by step and judged."""

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
    ".0°",
)
"""The families' fixed wording, which a character tokenizer may take as single tokens."""


def last_boxed(text: str) -> str | None:
    """What stands in the last closed `\\boxed{...}`, braces balanced; None without one.

    Looks at the last 4,000 characters only, and at no answer longer than MAX_ANSWER_CHARS.
    """
    text = text[-4_000:]
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for position in range(start, min(len(text), start + MAX_ANSWER_CHARS + 1)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return None


def judge(meta: Mapping[str, str], gold: str, answer_text: str) -> float:
    """reasoning-gym's score of a completion's boxed answer, in [0, 1]; exactly 1.0 means correct.

    `meta` is a Problem's, `answer_text` the whole completion. Raises DataError when `meta` names
    no known family or carries no readable entry.
    """
    family, entry = meta.get("task"), meta.get("entry")
    if family not in FAMILIES or entry is None or len(entry) > MAX_META_CHARS:
        raise DataError(f"task {str(family)[:40]!r} cannot be judged; known are " + ", ".join(FAMILIES))
    answer = last_boxed(answer_text)
    if answer is None:
        return 0.0
    try:
        metadata = json.loads(entry)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{family}: entry is not JSON: {error}; generate the problem again") from error
    item = {"answer": gold, "metadata": metadata}
    return float(_score_answer(family)(answer.strip(), item))


@functools.cache
def _score_answer(family: str) -> Callable[[str, dict[str, Any]], float]:
    scorer: Callable[[str, dict[str, Any]], float] = reasoning_gym().get_score_answer_fn(family)
    return scorer
