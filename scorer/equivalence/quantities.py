"""Two quantities: units first, then numbers exactly or as far as they are written, then math-verify."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from scorer.equivalence import engine
from scorer.equivalence.forms import Quantity
from scorer.equivalence.plain_numbers import SIGNIFICANT, Plain, based, close, number, rounds_to
from scorer.equivalence.units import factor, known

_SHORT_UNIT = re.compile(r"([-+\d.,/ ]*\d)\s*([mgsLNJWVhKA])")


def same_quantity(right: Quantity, given: Quantity) -> str | None:
    """The rule by which they are the same, or None."""
    units = right.unit, given.unit
    if units[0] == units[1]:
        return _scalars(right.scalar, given.scalar)
    if "%" in units:
        if units == ("%", "") and (rule := _scalars(right.scalar, given.scalar)):
            return f"percent, {rule}"
        hundredths = [f"\\frac{{{q.scalar}}}{{100}}" if q.unit == "%" else q.scalar for q in (right, given)]
        plain = [_hundredth(q.scalar) if q.unit == "%" else q.scalar for q in (right, given)]
        rule = _scalars(*plain) if None not in plain else _scalars(*hundredths)  # type: ignore[arg-type]
        return f"percent, {rule}" if rule else None
    if "deg" in units:
        bare = right if given.unit == "deg" else given
        if bare.unit:
            return None
        if r"\pi" in bare.scalar:
            radians = [f"{q.scalar} \\deg" if q.unit == "deg" else q.scalar for q in (right, given)]
            return "degrees and radians" if engine.same(*radians) else None
        return _scalars(right.scalar, given.scalar)
    short = _SHORT_UNIT.fullmatch(given.scalar) if not given.unit and known(right.unit) is not None else None
    if short:
        return same_quantity(right, Quantity(short[1], short[2]))
    by = factor(*units)
    if by is None:
        return None
    if by == 1.0:
        return _scalars(right.scalar, given.scalar)
    values = engine.value(right.scalar), engine.value(given.scalar)
    if values[0] is None or values[1] is None:
        return None
    return "units converted" if math.isclose(values[0], values[1] * by, rel_tol=1e-9) else None


def _hundredth(scalar: str) -> str | None:
    """28.5 as 0.285: with all its digits, which say how far it is rounded."""
    plain = number(scalar)
    if plain is None or plain.places is None or plain.places < 0:
        return None
    places = plain.places + 2
    return f"{float(plain.value / 100):.{places}f}" if places < 15 else None


def _scalars(right: str, given: str) -> str | None:
    plain = number(right), number(given)
    if based(right) != based(given) and plain[0] == plain[1] is None:
        return None
    if plain[0] is not None and plain[1] is not None:
        if plain[0].value == plain[1].value:
            return "same number"
        return "rounded" if close(plain[0], plain[1]) else None
    expressions = engine.expression(right), engine.expression(given)
    if None in expressions:
        return None
    values = engine.constant(expressions[0]), engine.constant(expressions[1])
    if None in values:
        return "same expression" if engine.equal(*expressions) else None
    if engine.same_constant(*values):
        return "same value"
    for written, exact, digits in ((plain[0], values[1], SIGNIFICANT - 1), (plain[1], values[0], SIGNIFICANT)):
        if written and written.decimal and written.significant >= digits and _rounded(exact, written):
            return "rounded"
    return None


def _rounded(exact: Any, written: Plain) -> bool:
    return bool(exact.is_real) and rounds_to(Decimal(str(exact)), written)
