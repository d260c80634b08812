"""Relations: x = 5 and 5, two equations with the same solutions, xy = 6 and 6/x, a < b < c and a, b, c."""

from __future__ import annotations

from collections.abc import Callable

from scorer.equivalence import engine, points
from scorer.equivalence.forms import Form, Listed, Quantity, Relation, text_of
from scorer.equivalence.latex import TEXT, canonical
from scorer.equivalence.plain_numbers import number
from scorer.equivalence.reading import read
from scorer.equivalence.symbols import INEQUALITIES, is_name

Same = Callable[[Form, Form], str | None]


def same_relation(right: Relation, given: Form, same: Same) -> str | None:
    """The rule by which a gold relation is met; `same` compares what stands on its sides."""
    if isinstance(given, Relation):
        return _both(right, given, same)
    if _is_assignment(right):
        for value in _values(right):
            if rule := same(value, given):
                return f"assigned, {rule}"
    if r"\approx" in right.operators and (rule := same(read(right.sides[0]), given)):
        return rule
    if isinstance(given, Listed) and not given.brackets and set(right.operators) <= set(INEQUALITIES[:2]):
        sides = [canonical(side) for side in right.sides]
        return "order of names" if sides == [canonical(text_of(item)) for item in given.items] else None
    if right.operators == ("=",) and isinstance(given, Quantity):
        return _solved(right, given.scalar)
    return None


def same_value(right: Form, given: Relation, same: Same) -> str | None:
    """x = 5: what stands last counts, or what is said to be about it."""
    if not set(given.operators) <= {"=", r"\approx"}:
        return None
    last = read(given.sides[-1])
    named = is_name(given.sides[0]) or TEXT.fullmatch(given.sides[0])
    if not named and not (isinstance(last, Quantity) and number(last.scalar) is not None):
        return None
    return next((f"assigned, {rule}" for value in _values(given) if (rule := same(right, value))), None)


def _both(right: Relation, given: Relation, same: Same) -> str | None:
    if right.operators == given.operators and all(
        canonical(a) == canonical(b) for a, b in zip(right.sides, given.sides, strict=False)
    ):
        return "same text"
    if _is_assignment(right) and _is_assignment(given) and canonical(right.sides[0]) == canonical(given.sides[0]):
        return next((f"assigned, {rule}" for a in _values(right) for b in _values(given) if (rule := same(a, b))), None)
    if len(right.operators) > 1 or len(given.operators) > 1:
        return _side_by_side(right, given, same)
    if right.operators != ("=",) or given.operators != ("=",):
        texts = [engine.expression(text_of(form)) for form in (right, given)]
        return "same relation" if None not in texts and engine.equal(*texts) else None
    return _proportional(right, given, same)


def _side_by_side(right: Relation, given: Relation, same: Same) -> str | None:
    if right.operators != given.operators:
        return None
    pairs = zip(right.sides, given.sides, strict=True)
    return "side by side" if all(same(read(a), read(b)) for a, b in pairs) else None


def _is_assignment(relation: Relation) -> bool:
    return set(relation.operators) <= {"=", r"\approx"} and is_name(relation.sides[0])


def _values(relation: Relation) -> list[Form]:
    """What stands last; where that is an approximation, also what it approximates."""
    several = relation.operators[-1] == r"\approx" and len(relation.sides) > 2
    return [read(side) for side in relation.sides[-2 if several else -1 :]]


def _proportional(right: Relation, given: Relation, same: Same) -> str | None:
    from sympy import Derivative, simplify

    differences = []
    for form in (right, given):
        sides = [engine.expression(side) for side in form.sides]
        if None in sides:
            return None
        if any(side.has(Derivative) for side in sides) or not any(side.free_symbols for side in sides):
            return _side_by_side(right, given, same)  # dM/dt of a mere name is 0, and 1 = 2 says nothing
        differences.append(sides[0] - sides[1])
    if differences[1] == 0 or differences[0] == 0:
        return None
    agree = points.ratio(*differences)
    if agree is not None:
        return "same equation" if agree else None
    quotient = simplify(differences[0] / differences[1])
    return "same equation" if not quotient.free_symbols and quotient.is_finite and quotient != 0 else None


def _solved(right: Relation, given: str) -> str | None:
    """xy = 6 and 6/x: the answer solves the equation for the one name that it lacks, and nothing else does."""
    from sympy import simplify

    left, value, answer = (engine.expression(text) for text in (*right.sides, given))
    if None in (left, value, answer):
        return None
    difference = left - value
    missing = difference.free_symbols - answer.free_symbols
    if len(missing) != 1 or not answer.free_symbols or not answer.free_symbols <= difference.free_symbols:
        return None
    [name] = missing
    slope = difference.diff(name)
    if name in slope.free_symbols or slope == 0:
        return None
    return "solves the equation" if simplify(difference.subs(name, answer)) == 0 else None
