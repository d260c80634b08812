"""Finds the answer in a completion: linear in its length, bounded, without parsing any mathematics.

What is found here is all that a verifying child is sent: a short text instead of a long chain of
thought. That is what pays in speed, and equal answers of a group need to be judged only once.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

BOX_SEARCH_CHARS = 50_000
"""A box is looked for in so much of the end: a final answer is not followed by more."""
MAX_BOXES = 8
BARE_CHARS = 200

_BOX = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BETWEEN = re.compile(r"(?:[\s$,;]|\\[()\[\] ]|\\q?quad|and|or|\\text\{ *(?:and|or) *\})+")
_MATH_DELIMITER = re.compile(r"\$|\\[(\[]")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")


class Answer(NamedTuple):
    """`Answer("\\frac{1}{2}", "exact")`: the text to judge, and how it was found."""

    text: str
    """At most `max_chars` characters; what a box holds, without the box."""
    kind: Literal["exact", "tail"]
    """exact: nothing but the answer. tail: the end of the completion, the answer is somewhere in it."""


def find_answer(completion: str, max_chars: int) -> Answer | None:
    """The last closed \\boxed{...}; else a completion that is nothing but an answer; else its tail.

    None: there is nothing to judge (no text, or an empty box). A box that is not closed within `max_chars`
    is no answer (the completion was cut inside it): an earlier closed one counts, but not the text around
    it, whose numbers are steps. Boxes that follow each other as in `\\boxed{1} and \\boxed{2}` are one
    answer of several parts.
    """
    parts = _last_boxes(completion[-BOX_SEARCH_CHARS:], max_chars)
    if parts is not None:
        text = ", ".join(dict.fromkeys(part for part in parts if part))
        return Answer(text, "exact") if text else None
    tail = completion[-max_chars:].strip()
    if not tail:
        return None
    return Answer(tail, "exact" if _is_bare(completion) else "tail")


def _last_boxes(text: str, max_chars: int) -> list[str] | None:
    """Contents of the last closed box and of those joined to it, in order; None without any box."""
    openings = list(_BOX.finditer(text))[-MAX_BOXES:]
    parts: list[str] = []
    next_start = 0
    for opening in reversed(openings):
        end = _closing_brace(text, opening.end(), max_chars)
        if end is None:
            continue
        if parts and not _joins(text[end + 1 : next_start]):
            break
        parts.insert(0, text[opening.end() : end].strip())
        next_start = opening.start()
    return parts if openings else None


def _closing_brace(text: str, start: int, max_chars: int) -> int | None:
    depth = 1
    for brace in _BRACE.finditer(text, start, start + max_chars + 1):
        # An escaped brace, as in \{1, 2\}, is a character of the answer and opens nothing.
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.start()
    return None


def _joins(between: str) -> bool:
    """Whether two boxes with this text between them are parts of one answer, not two attempts."""
    if not between:
        return True
    if len(between) > 40 or _BETWEEN.fullmatch(between) is None:
        return False
    return "," in between or "and" in between or "or" in between


def _is_bare(completion: str) -> bool:
    """One short line without words or math delimiters: `x = \\frac{1}{2}`, but not `it is $2$`."""
    line = completion.strip()
    if len(line) > BARE_CHARS or not line.isprintable() or not any(map(str.isalnum, line)):
        return False
    return not _MATH_DELIMITER.search(line) and not _WORD.search(line)
