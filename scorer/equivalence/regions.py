"""Sets of reals: unions, differences and intersections of intervals, inequalities and set builders, as sympy sets."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from scorer.equivalence import engine
from scorer.equivalence.brackets import cut, inside, split
from scorer.equivalence.symbols import COMMAS, INEQUALITIES, RELATION, is_name, names, operators

_CUP = re.compile(r"\\cup(?![a-zA-Z])|\\vee(?![a-zA-Z])")
_CAP = re.compile(r"\\cap(?![a-zA-Z])|\\wedge(?![a-zA-Z])")
_MINUS = re.compile(r"\\setminus(?![a-zA-Z])|(?<=[\])}])\s*-\s*(?=\\?[\[({])")
_OR = re.compile(r"\\text\s*\{\s*,?\s*or\s*\}|(?<![a-zA-Z])or(?![a-zA-Z])")
_BAR = re.compile(r"\||\\mid(?![a-zA-Z])|:")
_IN = re.compile(r"\\in(?![a-zA-Z])")
_REALS = re.compile(r"\\mathbb\s*\{?R\}?|\\text\s*\{?R\}?|R|\\Re")
_INFINITY = re.compile(r"[-+]?\s*\\infty")


def region(text: str) -> Any:
    """The set that is written, None where it is none: an end that is no constant, several names."""
    from sympy import S, Union

    text = text.strip()
    for separator, join in ((_OR, "union"), (_CUP, "union"), (_MINUS, "minus"), (_CAP, "both")):
        parts = split(text, separator)
        if len(parts) > 1 and all(parts):
            sets = [region(part) for part in parts]
            if None in sets:
                return None
            if join == "union":
                return Union(*sets)
            first, *rest = sets
            for other in rest:
                first = first - other if join == "minus" else first.intersect(other)
            return first
    named, member = cut(text, _IN)
    if member and is_name(named) and len(split(member, COMMAS)) == 1:
        return region(member)
    if _REALS.fullmatch(text):
        return S.Reals
    if text in (r"\emptyset", r"\{\}", r"\{ \}"):
        return S.EmptySet
    bracketed = inside(text)
    if bracketed is not None and bracketed[0] == "{}":
        return _braced(bracketed[1])
    if bracketed is not None and "," in bracketed[1]:
        return _interval(*bracketed)
    return _inequalities(text)


def same_region(right: Any, given: Any) -> bool:
    """Equal as sets; ends that are written otherwise are compared by value."""
    if right == given:
        return True
    ends = [[(float(end), end in each) for end in sorted(each.boundary, key=float)] for each in (right, given)]
    if len(ends[0]) != len(ends[1]):
        return False
    same_ends = all(
        abs(a - b) <= 1e-9 * max(1.0, abs(a)) and held == held_too
        for (a, held), (b, held_too) in zip(ends[0], ends[1], strict=True)
    )
    return same_ends and _inner(right, [end for end, _ in ends[0]]) == _inner(given, [end for end, _ in ends[0]])


def _inner(where: Any, ends: list[float]) -> list[bool]:
    """Which of the stretches between the ends belong to it."""
    points = [ends[0] - 1, *((a + b) / 2 for a, b in pairwise(ends)), ends[-1] + 1] if ends else [0.0]
    return [bool(where.contains(point)) for point in points]


def _braced(content: str) -> Any:
    from sympy import FiniteSet

    name, condition = cut(content, _BAR)
    if condition and RELATION.search(condition):
        return region(condition) if is_name(cut(name, _IN)[0]) else None
    values = [_end(part) for part in split(content, COMMAS) if part]
    return None if None in values or not values else FiniteSet(*values)


def _interval(brackets: str, content: str) -> Any:
    from sympy import Interval

    ends = [_end(part) for part in split(content, re.compile(",")) if part]
    if len(ends) != 2 or None in ends or brackets[0] not in "([" or brackets[1] not in ")]":
        return None
    return Interval(*ends, brackets[0] == "(", brackets[1] == ")")


def _inequalities(text: str) -> Any:
    """The values of the one name for which all of them hold."""
    from sympy import S

    found = S.Reals
    for part in split(text, COMMAS):
        if not part or re.search(r"\\in(?![a-zA-Z])", part):
            continue
        one = _inequality(part)
        if one is None:
            return None
        found = found.intersect(one)
    # Of what cannot be, something was misread: the empty set is written as one.
    return None if found is S.Reals or found is S.EmptySet else found


def _inequality(text: str) -> Any:
    from sympy import FiniteSet, Interval, S, oo

    sides, between = split(text, RELATION), operators(text)
    if len(sides) != len(between) + 1 or len({name for side in sides for name in names(side)}) > 1:
        return None
    found = S.Reals
    for left, operator, right in zip(sides, between, sides[1:], strict=False):
        solved = _solved(left, operator, right)
        if solved is None:
            return None
        operator, end = solved
        if operator in INEQUALITIES:
            below = operator in ("<", r"\le")
            open_ = operator in INEQUALITIES[:2]
            found = found.intersect(Interval(-oo, end, True, open_) if below else Interval(end, oo, open_, True))
        elif operator == r"\ne":
            found = found - FiniteSet(end)
        elif operator == "=":
            found = found.intersect(FiniteSet(end))
        else:
            return None
    return found


_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


def _solved(left: str, operator: str, right: str) -> tuple[str, Any] | None:
    """x on the left of the operator, and its end: of `5 > x`, of `-x > -1`; None for what is not linear in one name."""
    if names(left) and names(right):
        return None
    if names(right):
        left, right, operator = right, left, _TURNED.get(operator, operator)
    end = _end(right)
    if end is None or not names(left):
        return None
    if left.strip() in names(left):
        return operator, end
    side = engine.expression(left)
    if end.is_infinite or side is None or len(getattr(side, "free_symbols", ())) != 1:
        return None
    [name] = side.free_symbols
    slope = side.diff(name)
    if slope.free_symbols or not slope.is_real or slope == 0:
        return None
    return (_TURNED.get(operator, operator) if slope < 0 else operator), (end - side.subs(name, 0)) / slope


def _end(text: str) -> Any:
    """A real constant or an infinity."""
    from sympy import oo

    text = text.strip().rstrip(".")
    if _INFINITY.fullmatch(text):
        return -oo if text.startswith("-") else oo
    found = engine.expression(text)
    if found is None or getattr(found, "free_symbols", True) or not getattr(found, "is_extended_real", False):
        return None
    return found
