"""A cold start on the model's own samples: which of them are kept. Pure.

The recipe of the HERO paper (arXiv:2510.07242, section 3): what the base model itself gets right, ends, and says in
English, so that the cold start teaches form and nothing that the model does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from learner.language import is_in

Filter = Literal["correct", "terminated", "language"]


@dataclass(frozen=True)
class OwnSample:
    """`OwnSample("12 + 30 = ?", "It is \\\\boxed{42}", correct=True, terminated=True)`"""

    question: str
    completion: str
    correct: bool
    terminated: bool
    """It ended by itself, not at the limit of its length."""


def chosen(
    samples: Sequence[Sequence[OwnSample]], count: int, filters: Collection[Filter], language: str
) -> tuple[list[tuple[str, str]], Counter[str]]:
    """At most `count` (question, completion), and how many samples each filter left out.

    samples: those of one problem together. The first kept one of every problem goes before any problem's second, so
    that easy problems do not crowd the others out; equal completions of a problem count once.
    """
    left_out: Counter[str] = Counter()
    kept: list[list[tuple[str, str]]] = []
    for group in samples:
        good: dict[str, None] = {}
        for sample in group:
            reason = _why_not(sample, filters, language)
            if reason or sample.completion in good:
                left_out[reason or "repeated"] += 1
            else:
                good[sample.completion] = None
        kept.append([(group[0].question, completion) for completion in good] if good else [])
    rounds = max(map(len, kept), default=0)
    ordered = [group[turn] for turn in range(rounds) for group in kept if turn < len(group)]
    left_out["more than needed"] = max(0, len(ordered) - count)
    return ordered[:count], +left_out


def _why_not(sample: OwnSample, filters: Collection[Filter], language: str) -> str:
    if "terminated" in filters and not sample.terminated:
        return "not terminated"
    if "correct" in filters and not sample.correct:
        return "not correct"
    if not sample.completion.strip():
        return "empty"
    if "language" in filters and not is_in(language, sample.completion):
        return f"not in {language}"
    return ""
