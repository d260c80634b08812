"""Brackets: which one closes another, and what stands outside of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

COMMAND = re.compile(r"\\[a-zA-Z]+|\\.", re.S)
_BRACKET = re.compile(r"\\[a-zA-Z]+|\\.|[()\[\]{}]", re.S)
_OPENING = re.compile(r"\\\{|[(\[{]")
_DEPTH = {"(": 1, "[": 1, "{": 1, "\\{": 1, ")": -1, "]": -1, "}": -1, "\\}": -1}


def closing(text: str, start: int) -> int:
    """Place of the bracket that closes the one at `start`, of whatever kind, as in [0, 1); the end where none does."""
    depth = 0
    for bracket in _BRACKET.finditer(text, start):
        depth += _DEPTH.get(bracket[0], 0)
        if depth <= 0:
            return bracket.end() - 1
    return len(text)


def outside(text: str, wanted: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """What is wanted, where it stands in no bracket and is no part of a command."""
    place = 0
    while place < len(text):
        if _OPENING.match(text, place):
            place = closing(text, place) + 1
            continue
        found = wanted.match(text, place)
        if found and found.end() > place:
            yield found
            place = found.end()
        else:
            skipped = COMMAND.match(text, place)
            place = skipped.end() if skipped else place + 1


def split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Cut at separators that stand in no bracket."""
    parts, start = [], 0
    for cut in outside(text, separator):
        parts.append(text[start : cut.start()])
        start = cut.end()
    return [part.strip() for part in [*parts, text[start:]]]


def cut(text: str, separator: re.Pattern[str]) -> tuple[str, str]:
    """What stands before and after the first separator that stands in no bracket; without one, "" after."""
    found = next(outside(text, separator), None)
    return (text[: found.start()].strip(), text[found.end() :].strip()) if found else (text, "")


def inside(text: str) -> tuple[str, str] | None:
    """(brackets, content) of a text that is all in one pair."""
    opening = r"\{" if text.startswith(r"\{") else text[:1]
    if opening not in ("(", "[", r"\{") or closing(text, 0) != len(text) - 1:
        return None
    end = r"\}" if text.endswith(r"\}") else text[-1]
    return opening[-1] + end[-1], text[len(opening) : len(text) - len(end)].strip()


def braced(text: str, before: re.Pattern[str]) -> str:
    """Round brackets after each `before` as braces: `\\sqrt(51)` is `\\sqrt{51}`."""
    opened: list[int] = []
    ends: dict[int, int] = {}
    for at, char in enumerate(text):
        if char == "(":
            opened.append(at)
        elif char == ")" and opened:
            ends[opened.pop()] = at
    chars = list(text)
    for found in before.finditer(text):
        if found.end() in ends:
            chars[found.end()], chars[ends[found.end()]] = "{", "}"
    return "".join(chars)
