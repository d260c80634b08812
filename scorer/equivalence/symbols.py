"""What stands between the parts of an answer: separators, relations, brackets; and the names in it."""

from __future__ import annotations

import re

from scorer.equivalence.latex import COMMAND, TEXT, closing

COMMAS = re.compile(
    r",|;|(?:\\text\s*\{\s*(?:and|or)\s*\}|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])),?|\\text\s*\{\s*,?\s*(?:and|or)\s*\}"
)
RELATION = re.compile(r"<=|>=|!=|=|<|>|\\(?:le|ge|ne|approx|equiv|lt|gt|sim|simeq|cong)(?![a-zA-Z])")
OPERATORS = {
    "<=": r"\le",
    ">=": r"\ge",
    "!=": r"\ne",
    r"\lt": "<",
    r"\gt": ">",
    r"\sim": r"\approx",
    r"\simeq": r"\approx",
}
INEQUALITIES = ("<", ">", r"\le", r"\ge")
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|max|min|gcd|lcm|mod|lim|arcsin|arccos|arctan|pi|det"
PLAIN_WORD = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{_FUNCTIONS})(?![a-zA-Z]))[a-zA-Z]{{3,}}")
_NOTATION = "frac sqrt pi le ge ne infty cdot times in mathbb lt gt deg approx"
_NO_NAMES = {f"\\{word}" for word in [*_NOTATION.split(), *_FUNCTIONS.split("|")]} | {"e", "or", "and"}
_NAME = re.compile(r"(?:\\Delta\s*)?\\?[a-zA-Z]+(?:_(?:\{[^{}]*\}|\w)|\^\{?\\prime\}?|')*(?:\s*\([^()=]*\))?")


def names(text: str) -> set[str]:
    """Variables that a text names: letters and Greek ones, with their index."""
    found = re.findall(r"(\\[a-zA-Z]+|[a-zA-Z]+)(_(?:\{[^{}]*\}|\w))?", TEXT.sub(" ", text))
    return {name + index for name, index in found if name not in _NO_NAMES}


def is_name(text: str) -> bool:
    """x, a_n, f(x), (a, b): what an answer is given to; not 2 x."""
    return bool(_NAME.fullmatch(text.strip())) or (text.startswith("(") and text.endswith(")") and "," in text)


def inside(text: str) -> tuple[str, str] | None:
    """(brackets, content) of a text that is all in one pair."""
    opening = r"\{" if text.startswith(r"\{") else text[:1]
    if opening not in ("(", "[", r"\{") or closing(text, 0) != len(text) - 1:
        return None
    end = r"\}" if text.endswith(r"\}") else text[-1]
    return opening[-1] + end[-1], text[len(opening) : len(text) - len(end)].strip()


def operators(text: str) -> list[str]:
    """The relations of a chain that stand in no bracket, in one spelling."""
    found, place = [], 0
    while place < len(text):
        if text[place] in "([{":
            place = closing(text, place) + 1
        elif cut := RELATION.match(text, place):
            found.append(OPERATORS.get(cut[0], cut[0]))
            place = cut.end()
        elif command := COMMAND.match(text, place):
            place = command.end()
        else:
            place += 1
    return found
