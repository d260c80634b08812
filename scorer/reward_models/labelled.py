"""Labelled completions: a JSONL file with a question, a completion and whether it is correct, one to a row."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.problems import BadLine, file_rows
from common.untrusted import MAX_TEXT_CHARS


@dataclass(frozen=True)
class LabelledGroup:
    """`LabelledGroup("12 + 30 = ?", ["\\\\boxed{42}", "\\\\boxed{43}"], [True, False])`"""

    question: str
    completions: Sequence[str]
    labels: Sequence[bool]
    gold: str | None = None


@dataclass(frozen=True)
class Fields:
    """Names of the fields in a row; `gold` may be missing from it."""

    question: str = "question"
    completion: str = "completion"
    label: str = "correct"
    gold: str = "answer"


def read(file: Path, fields: Fields, most: int | None = None) -> tuple[list[LabelledGroup], list[BadLine]]:
    """The first `most` rows of `file` (.gz too) by question, and the lines that were left out, each with its reason.

    Raises DataError when nothing can be used.
    """
    rows: dict[str, tuple[list[str], list[bool], str | None]] = {}
    bad: list[BadLine] = []
    for number, row in itertools.islice(file_rows(file), most):
        problem = row if isinstance(row, str) else _problem(row, fields)
        if isinstance(row, str) or problem:
            bad.append(BadLine(number, problem or ""))
            continue
        gold = row.get(fields.gold)
        group = rows.setdefault(row[fields.question], ([], [], None if gold is None else str(gold)))
        group[0].append(row[fields.completion])
        group[1].append(row[fields.label])
    if not rows:
        first = "; ".join(f"line {line.number}: {line.reason}" for line in bad[:3]) or "it is empty"
        raise DataError(
            f"{file} has no labelled completion ({len(bad)} bad lines): {first}; data.question, "
            "rm.completion_field and rm.correct_field name the fields"
        )
    return [LabelledGroup(question, *group) for question, group in rows.items()], bad


def subset(groups: Iterable[LabelledGroup], prompts: int, completions: int, seed: int) -> list[LabelledGroup]:
    """`prompts` of the groups by chance, those with both labels first, and `completions` of each, of either label as
    many as can be."""
    dice = random.Random(seed)  # noqa: S311
    shuffled = list(groups)
    dice.shuffle(shuffled)
    shuffled.sort(key=lambda group: len(set(group.labels)), reverse=True)
    return [_fewer(group, completions, dice) for group in shuffled[:prompts]]


def _fewer(group: LabelledGroup, completions: int, dice: random.Random) -> LabelledGroup:
    places = dice.sample(range(len(group.labels)), len(group.labels))
    right = [place for place in places if group.labels[place]]
    wrong = [place for place in places if not group.labels[place]]
    half = max(completions // 2, completions - len(wrong))
    kept = right[:half] + wrong[: completions - min(half, len(right))]
    texts, labels = [group.completions[p] for p in kept], [group.labels[p] for p in kept]
    return LabelledGroup(group.question, texts, labels, group.gold)


def _problem(row: dict[str, Any], fields: Fields) -> str:
    """Why a row cannot be used; empty when it can."""
    for name in (fields.question, fields.completion):
        if not isinstance(row.get(name), str) or len(row[name]) > MAX_TEXT_CHARS:
            return f"no text of at most {MAX_TEXT_CHARS:,} characters in {name!r}; it has {', '.join(list(row)[:8])}"
    if not isinstance(row.get(fields.label), bool):
        return f"field {fields.label!r} is not true or false; it has {', '.join(list(row)[:8])}"
    return ""
