"""Judges one answer against its gold answer. Runs inside a child of `scorer.sandbox`, never in a worker.

The calls below may hang in C code, fill the memory or crash: `\\boxed{9^{9^{9^9}}}` does. Nothing here
defends against that; the sandbox does, from outside. math-verify's own time limits stay off: they are
SIGALRM, which reaches the main thread alone and never interrupts C code.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from scorer.answers import Answer, find_answer
from scorer.equivalence.compare import NO_OPTIONS, Options, equal, is_answer

Kind = Literal["math", "paper", "task"]
Status = Literal["correct", "wrong", "no_answer", "unparsable", "timeout", "error"]

EXTRACTED_CHARS = 500
"""A verdict carries so much of the answer: enough to read in a log, whatever the completion was."""


_FIRST = (
    ("x", "y"), ("1 cm", "2 mm"), ("x^2+1", "0.5"), (r"\int x dx", r"\log 8"), ("x < 3", r"x \le 4"),
    ("[0,1)", r"\{1, 2\}"), (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1, x)"), (r"\sqrt{2}", r"\sin(1)"),
)  # fmt: skip
"""A pair of answers of each sort: sympy imports what a sort needs when it meets it first, up to half a second of it."""


@dataclass(frozen=True)
class Verdict:
    """`Verdict("correct", "42", 0.6)`

    correct, wrong  the answer was read and compared.
    no_answer       nothing in the completion looks like an answer, or the box is empty.
    unparsable      an answer is there, but it is no mathematics that can be read.
    timeout         it hit the deadline: computing all the while, or in a batch and again alone.
    error           it killed its child, in a batch and again alone; or the data cannot be judged.
    """

    status: Status
    extracted: str | None
    """The answer as it was read, at most EXTRACTED_CHARS characters; None where there is none."""
    milliseconds: float
    """Wall time of the judgement; 0 where none was needed."""
    rule: str = ""
    """What made it correct: "same number", "units converted", "part by part", ..."""

    @property
    def correct(self) -> bool:
        return self.status == "correct"


def answer_of(kind: Kind, completion: str, max_chars: int) -> Answer | None:
    """The part of a completion that a verifier of this kind judges; None: status `no_answer`."""
    if kind != "task":
        return find_answer(completion, max_chars)
    from common.tasks import last_boxed

    boxed = last_boxed(completion)
    return Answer(boxed, "exact") if boxed is not None and boxed.strip() else None


def warm_up(kind: Kind) -> None:
    """Imports what judging needs and runs it once, so that no answer pays for it."""
    logging.disable(logging.CRITICAL)  # math-verify warns that its time limits are off
    if kind == "task":
        from common.tasks import reasoning_gym

        reasoning_gym()
    else:
        for right, given in _FIRST:
            judge(kind, right, Answer(given, "exact"), {})


def judge(kind: Kind, gold: str, answer: Answer, meta: Mapping[str, str], options: Options = NO_OPTIONS) -> Verdict:
    """Judges one answer; may never return. Raises MemoryError when the memory cap is hit."""
    start = time.perf_counter()
    if kind == "task":
        verdict = judge_task(gold, answer, meta)
    elif kind == "paper":
        verdict = judge_as_the_paper(gold, answer)
    else:
        verdict = judge_math(gold, answer, options)
    return replace(verdict, milliseconds=(time.perf_counter() - start) * 1e3)


def judge_math(gold: str, answer: Answer, options: Options = NO_OPTIONS) -> Verdict:
    """By the rules of `scorer.equivalence`, on math-verify as their engine."""
    text = answer.text
    if answer.kind == "tail":
        found, text = _read_tail(text)
        if not found:
            return Verdict("no_answer", None, 0.0)
    rule = equal(_gold_text(gold), text, options)
    if rule:
        return Verdict("correct", text[:EXTRACTED_CHARS], 0.0, rule)
    return Verdict("wrong" if is_answer(text) else "unparsable", text[:EXTRACTED_CHARS], 0.0)


def _gold_text(gold: str) -> str:
    """The answer of a gold that is a whole solution."""
    found = find_answer(gold, len(gold)) if "\\boxed" in gold else None
    return found.text if found else gold


def judge_as_the_paper(gold: str, answer: Answer) -> Verdict:
    """math-verify as the HERO paper uses it: gold as boxed LaTeX; prediction as LaTeX or expression; any match."""
    from math_verify import verify
    from sympy import Basic, MatrixBase

    if answer.kind == "exact":
        found, extracted = _parse(f"\\boxed{{{answer.text}}}", expressions=True), answer.text
    else:
        found, extracted = _read_tail(answer.text)
        if not found:
            return Verdict("no_answer", None, 0.0)
    extracted = extracted[:EXTRACTED_CHARS]
    # The order matters: a gold relation may be met by a set, not the other way round.
    for right, given in itertools.product(_parse_gold(gold), found):
        try:
            if verify(right, given, timeout_seconds=None, raise_on_error=True):
                return Verdict("correct", extracted, 0.0, "math-verify")
        except MemoryError:
            raise
        except Exception:  # noqa: S112  sympy gave up on comparing this pair: no match, as in math-verify
            continue
    readable = any(isinstance(expression, Basic | MatrixBase) for expression in found)
    return Verdict("wrong" if readable else "unparsable", extracted, 0.0)


def judge_task(gold: str, answer: Answer, meta: Mapping[str, str]) -> Verdict:
    """reasoning-gym's own scorer; `meta` names the family and carries the problem's entry."""
    from common.errors import DataError
    from common.tasks import judge as score

    extracted = answer.text[:EXTRACTED_CHARS]
    try:
        right = score(meta, gold, f"\\boxed{{{answer.text}}}") == 1.0
    except DataError:
        return Verdict("error", extracted, 0.0)
    return Verdict("correct" if right else "wrong", extracted, 0.0, "reasoning-gym" if right else "")


def gold_problem(kind: Kind, gold: str) -> str | None:
    """Why no answer can be compared with this gold answer; None when one can. May never return."""
    if not gold.strip():
        return "the gold answer is empty"
    if kind == "paper":
        from sympy import Basic, MatrixBase

        if not any(isinstance(expression, Basic | MatrixBase) for expression in _parse_gold(gold)):
            return f"math-verify cannot read the gold answer {gold[:80]!r} as LaTeX"
    elif not is_answer(gold):
        return f"cannot read the gold answer {gold[:80]!r} as mathematics or words"
    # Reading 9^{9^{9^9}} is quick and comparing it never ends: compared here, once, it hits the deadline.
    judge(kind, gold, Answer("1", "exact"), {})
    return None


@functools.lru_cache(maxsize=64)
def _parse_gold(gold: str) -> list[Any]:
    """The completions of a group share their gold answer: it is parsed once, not once each."""
    return _parse(f"\\boxed{{{gold}}}", expressions=False)


def _read_tail(text: str) -> tuple[list[Any], str]:
    """What math-verify finds in the end of a completion, and the text of it: its last entry, or the only one."""
    found = _parse(text, expressions=True)
    return found, found[-1] if found and isinstance(found[-1], str) else ""


def _parse(text: str, *, expressions: bool) -> list[Any]:
    """sympy objects, then the text that was read; empty where nothing looks like mathematics."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    targets = [LatexExtractionConfig(), ExprExtractionConfig()] if expressions else [LatexExtractionConfig()]
    parsed: list[Any] = parse(text, targets, parsing_timeout=None)
    return parsed
