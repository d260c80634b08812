"""Expressions compared at a few points, before any algebra: where they differ, nothing needs to be simplified.

Analytic expressions that agree at all of POINTS are the same one (Schwartz and Zippel's test); those with steps,
and those that agree for positive numbers alone, like log x^2 and 2 log x, are left to math-verify.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

POSITIVE, MIXED = 2, 3
"""Points where all names are positive, and where some are below zero."""
DIGITS = 20
SAME_RATIO = 1e-9


def same(right: Any, given: Any) -> bool | None:
    """Whether two expressions agree; None where that decides nothing."""
    values, others = at_points(right), at_points(given)
    if values is None or others is None:
        return None
    agree = [None if None in pair else _near(*pair) for pair in zip(values, others, strict=True)]
    if False in agree[:POSITIVE]:
        return False
    return True if all(agree) and not (_has_steps(right) or _has_steps(given)) else None


def ratio(right: Any, given: Any) -> bool | None:
    """Whether two expressions are, but for a factor that is not 0, the same one; None where that decides nothing."""
    values, others = at_points(right), at_points(given)
    if values is None or others is None:
        return None
    pairs = [pair for pair in zip(values, others, strict=True) if None not in pair and pair[1] != 0]
    if len(pairs) < POSITIVE + MIXED:
        return None
    first = pairs[0][0] / pairs[0][1]
    return first != 0 and all(_near(a, first * b) for a, b in pairs)


def at_points(expression: Any) -> list[Any] | None:
    """Values at the POINTS, None where it has none there; None for what is no plain function of its names."""
    from sympy import Derivative, Expr, Integral, Limit, Product, Sum
    from sympy.core.function import AppliedUndef

    unplain = Derivative, Integral, Limit, Product, Sum, AppliedUndef
    if not isinstance(expression, Expr) or expression.is_Matrix or expression.has(*unplain):
        return None
    return [_value(expression, place) for place in range(POSITIVE + MIXED)]


def _value(expression: Any, place: int) -> Any:
    where = {name: _coordinate(name.name, place) for name in expression.free_symbols}
    try:
        found = expression.evalf(DIGITS, subs=where)
    except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
        return None
    return found if found.is_number and found.is_finite else None


@lru_cache(maxsize=512)
def _coordinate(name: str, place: int) -> float:
    """The same for the same name; its sign, beyond the first points, by chance."""
    random_ = random.Random(f"{name} {place}")  # noqa: S311
    size = random_.uniform(0.3, 2.3)
    return size if place < POSITIVE or random_.random() < 0.3 else -size


def _near(a: Any, b: Any) -> bool:
    return bool(abs(a - b) <= SAME_RATIO * max(abs(a), abs(b)))


def _has_steps(expression: Any) -> bool:
    from sympy import Abs, Max, Min, Mod, Piecewise, ceiling, floor, sign

    return bool(expression.has(floor, ceiling, Mod, Max, Min, Abs, sign, Piecewise))
