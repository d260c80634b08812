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

STATED_CHARS = 300
"""So much may follow an answer that is stated in words, and it is still the last one."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_OPEN_END = re.compile(r"\n|\$|\\[)\]]|\.(?=\s|$)")
_UNFINISHED = re.compile(r"[-+*/=^_,:(\[{<>\\]$|\\(?!pi|infty|emptyset|circ|%)[a-zA-Z]+$")
_STATED = re.compile(
    r"####|^[*\s]{0,8}A:|^[*#\s]{0,8}(?:final\s{1,8})?answer[*\s]{0,8}\n|"
    r"\banswers?\b[^.\n:=$]{0,80}?(?:\b(?:is|are|equals|be)\b(?!\s+(?:not|in|of)\b)|:|=)",
    re.I | re.M,
)
_FINAL = re.compile(r"[Ff]inal [Aa]nswer(?: is|:)")
_LEADING = re.compile(
    r"(?:[\s:*]|(?:therefore|thus|then|simply|just|indeed|exactly|given by|equal to|the following)\b)*", re.I
)
_DISPLAY = re.compile(r"\\\[(.*?)\\\]|\$\$(.*?)\$\$", re.S)
_SENTENCE = re.compile(  # what is in mathematics ends none: n! (n - 1)
    r"\\\(.*?\\\)|\$[^$\n]+\$|(?P<end>\n|[.!?](?=[\s*]|$)"
    r"|,?\s+(?:which|because|since|where|when|so|as|if|after|and\s+(?:we|it|this|the))\b)"
)
_CONCLUDES = re.compile(
    r"(?:^|[.!\n])\s*(?:therefore|thus|hence|so|finally|in conclusion)\b[^\n]{0,300}?\b(?:is|are|equals|be)\s+"
    r"(?:equal to\s+)?(\\\((?:(?!\\[()]).)*\\\)|\$[^$\n]+\$)\s*\.?$",
    re.I,
)
_AGAIN = re.compile(r"\b(?:wait|actually|however|but|instead|mistake|wrong|incorrect|recheck|let me)\b", re.I)
_ANSWER_LIKE = re.compile(r"[-+\d.$\\(\[{|√]|[A-J](?![a-zA-Z])")
_BOLD = re.compile(r"\*\*([^*\n]{1,100})\*\*")
MOST_WORDS = 3
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
    """The last closed \\boxed{...}; else what is said to be the answer; else the tail of the completion.

    None: there is nothing to judge (no text, or an empty box). Boxes that follow each other as in
    `\\boxed{1} and \\boxed{2}` are one answer of several parts. What is said to be the final answer after
    the last box is meant to replace it.

    A box that nobody closed counts where no other is closed and what it holds up to the end of its line, of its
    mathematics or of the text is whole: `\\boxed{42` is a forgotten brace far more often than the beginning of
    4217, and a completion that was cut there at random is right by chance alone. `\\boxed{\\frac{1}{` and
    `\\boxed{(1,` are cut: there is no answer then, and the text around holds steps.
    """
    end = completion[-BOX_SEARCH_CHARS:]
    parts = _last_boxes(end, max_chars)
    if parts is not None:
        after = end[end.rfind("boxed") :][-max_chars:]
        stated = _stated(after) if _FINAL.search(after) else None
        if stated:
            return Answer(stated, "exact")
        text = ", ".join(dict.fromkeys(part for part in parts if part))
        return Answer(text, "exact") if text else None
    tail = completion[-max_chars:].strip()
    if not tail:
        return None
    stated = _stated(tail) or (tail if _is_bare(completion) else _in_bold(tail) or _concluded(tail))
    return Answer(stated, "exact") if stated else Answer(tail, "tail")


def _last_boxes(text: str, max_chars: int) -> list[str] | None:
    """Contents of the last closed box and of those joined to it, in order; None without any box."""
    openings = list(_BOX.finditer(text))[-MAX_BOXES:]
    parts: list[str] = []
    next_start = 0
    for opening in reversed(openings):
        end = _closing_brace(text, opening.end(), max_chars)
        if end is None:
            continue
        if parts and end > next_start:  # a box around a box
            parts.pop(0)
        elif parts and not _joins(text[end + 1 : next_start]):
            break
        parts.insert(0, text[opening.end() : end].strip())
        next_start = opening.start()
    if openings and not parts:
        parts = [_unclosed(text[openings[-1].end() :], max_chars)]
    return parts if openings else None


def _unclosed(text: str, max_chars: int) -> str:
    """What an unclosed box holds, "" where that was cut."""
    end = _OPEN_END.search(text)
    held = text[: end.start() if end else len(text)].strip()
    if len(held) > min(BARE_CHARS, max_chars):
        return ""
    cut = _UNFINISHED.search(held) or held.count("{") != held.count("}")
    ended = sum(map(held.count, "([")) == sum(map(held.count, ")]"))
    return held if ended and not cut else ""


def _stated(tail: str) -> str | None:
    """`The answer is X`, `Final answer: X`, `#### X`, `A: X`: the last one, if nothing after it takes it back."""
    places = [found.end() for found in _STATED.finditer(tail)]
    if not places:
        return None
    start = _LEADING.match(tail, places[-1]).end()  # type: ignore[union-attr]  # it matches ""
    display = _DISPLAY.match(tail, start)
    end = display or next((found for found in _SENTENCE.finditer(tail, start) if found["end"]), None)
    text = (display[1] or display[2]) if display else tail[start : end.start() if end else len(tail)]
    text = text.replace("**", "").strip()
    rest = tail[end.end() :] if end else ""
    if not text or len(text) > BARE_CHARS or len(rest) > STATED_CHARS or _AGAIN.search(rest):
        return None
    return text if len(_WORD.findall(text)) <= MOST_WORDS and (display or _is_short(text)) else None


def _is_short(text: str) -> bool:
    """A number, a formula or a choice, with its unit; a few words only where they are all of it."""
    return _ANSWER_LIKE.match(text) is not None or len(text.split()) <= MOST_WORDS


def _in_bold(tail: str) -> str | None:
    """`so there are **6**.`: the last thing in bold of the last line, if it is a number or a formula."""
    for text in reversed(_BOLD.findall(tail.rpartition("\n")[2])):
        text = text.strip()
        if _ANSWER_LIKE.match(text) and not text.endswith(":") and len(_WORD.findall(text)) <= 1:
            return str(text)
    return None


def _concluded(tail: str) -> str | None:
    """`Thus the sum is $6$.`: the formula that a concluding last sentence ends with."""
    found = _CONCLUDES.search(tail, max(0, len(tail) - STATED_CHARS))
    return found[1] if found else None


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
