"""What stands between the parts of an answer: separators, relations, brackets; and the names in it."""

from __future__ import annotations

import re

from scorer.equivalence.brackets import outside, split
from scorer.equivalence.latex import TEXT

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
_NAME = re.compile(
    r"(?:\\(?:Delta|angle|triangle|overline|vec|hat|bar)\s*)?\{?\\?[a-zA-Z]+\}?"
    r"(?:\s*_\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\w|\\[a-zA-Z]+)|\^\{?\\prime\}?|')*(?:\s*\([^()=]*\))?"
)


def names(text: str) -> set[str]:
    """Variables that a text names: letters and Greek ones, with their index."""
    found = re.findall(r"(\\[a-zA-Z]+|[a-zA-Z]+)(_(?:\{[^{}]*\}|\w))?", TEXT.sub(" ", text))
    return {name + index for name, index in found if name not in _NO_NAMES}


def is_name(text: str) -> bool:
    """x, a_n, f(x), (a, b): what an answer is given to; not 2 x."""
    if text.startswith("(") and text.endswith(")") and "," in text:
        return all(_NAME.fullmatch(part) for part in split(text[1:-1], COMMAS))
    return bool(_NAME.fullmatch(text.strip()))


def operators(text: str) -> list[str]:
    """The relations of a chain that stand in no bracket, in one spelling."""
    return [OPERATORS.get(cut[0], cut[0]) for cut in outside(text, RELATION)]
