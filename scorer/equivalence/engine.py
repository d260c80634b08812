"""math-verify as the engine: one expression is read, two are compared.

What it reads is one scalar at a time, and the whole of it; lists, sets, units and words are taken apart before (forms).
Its calls may hang or exhaust the memory: they run in a child of scorer.sandbox alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from scorer.equivalence import points
from scorer.equivalence.plain_numbers import number

DIGITS = 30
"""Constants are computed to so many."""
SAME_RATIO = 1e-12
"""Constants that differ by less, in proportion, are one: decimals are read as doubles, good to 1e-16."""

_DEGREES = re.compile(r"([-+]?[\d.]+|[-+]?\\frac\{\d+\}\{\d+\})\s*\\deg(?![a-zA-Z])")
_NAMED_INDEX = re.compile(r"_\s*\{?\s*\\([a-zA-Z]+)\s*\}?")
_PRIMES = re.compile(r"(?<![\\a-zA-Z])([a-zA-Z])('+)")
_CONSTANT_NAME = re.compile(r"(?<![\\a-zA-Z])([EI])(?=\s*_)")
_CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}")
_FACTOR = re.compile(r"(?<=[\w})\]])\s*(?=\\(?:d|t)?binom(?![a-zA-Z]))")  # or it is lost
_IMAGINARY = re.compile(r"(?<![a-zA-Z\\_^{])i(?![a-zA-Z])|(?<=\{)i(?![a-zA-Z}])")


@lru_cache(maxsize=512)
def expression(text: str) -> Any:
    """The sympy expression of one scalar, None where it is none. A capital letter is another name."""
    from latex2sympy2_extended import latex2sympy
    from sympy import Basic, I, MatrixBase, Rational, Symbol

    plain = number(text)
    if plain is not None:
        return Rational(plain.value.numerator, plain.value.denominator)
    text = _DEGREES.sub(r"(\\frac{\\pi \1}{180})", text).replace(r"\deg", r"^{\circ}")
    text = _NAMED_INDEX.sub(r"_{\1}", text)
    text = _PRIMES.sub(lambda m: rf"{m[1]}_{{{'prime' * len(m[2])}}}", text)
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = _FACTOR.sub(r"\\cdot ", text)
    text = _CONSTANT_NAME.sub(r"\\mathcal{\1}", text)
    text = re.sub(r"\\cr(?![a-zA-Z])", r"\\\\", text)
    text = re.sub(r"\\(?:dollar|euro|pound|yen) ?", "", text)
    written, names = _configs()
    real = None if _IMAGINARY.search(text) else True
    try:
        found = latex2sympy(text, is_real=real, normalization_config=written, conversion_config=names)
        if real is None:
            found = found.subs(Symbol("i"), I)
    except MemoryError:
        raise
    except Exception:  # its errors for what it cannot read are of many kinds
        return None
    return found if isinstance(found, Basic | MatrixBase) else None


@lru_cache(maxsize=1)
def _configs() -> tuple[Any, Any]:
    """Units are taken off before (forms): here m is a name."""
    from latex2sympy2_extended import NormalizationConfig
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    written = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    return written, ConversionConfig(lowercase_symbols=False)


def equal(right: Any, given: Any) -> bool:
    """Whether two expressions agree at some points, or else math-verify finds them equal. What neither can
    compare is not."""
    from math_verify import verify

    agree = points.same(right, given)
    if agree is not None:
        return agree
    try:
        return bool(verify(right, given, timeout_seconds=None, raise_on_error=True))
    except MemoryError:
        raise
    except Exception:
        return False


def same(right: str, given: str) -> bool:
    """Whether two scalars, as texts, are equal by value."""
    plain = number(right), number(given)
    if plain[0] is not None and plain[1] is not None:
        return plain[0].value == plain[1].value
    expressions = expression(right), expression(given)
    if None in expressions:
        return False
    constants = constant(expressions[0]), constant(expressions[1])
    return same_constant(*constants) if None not in constants else equal(*expressions)


def constant(found: Any) -> Any:
    """The number that an expression is, to DIGITS digits and of any size; None for what has a variable or is none."""
    from sympy import Expr

    if not isinstance(found, Expr) or found.is_Matrix or found.free_symbols:
        return None
    try:
        result = found.evalf(DIGITS)
    except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
        return None
    return result if result.is_number and result.is_finite else None


def same_constant(right: Any, given: Any) -> bool:
    """1e-7 is not 2e-7, and 1/2^2012 is not 0."""
    return bool(abs(right - given) <= SAME_RATIO * max(abs(right), abs(given)))


def value(text: str) -> float | None:
    """A constant as a float; None for what has a variable, is no number or not finite."""
    plain = number(text)
    try:
        if plain is not None:
            return float(plain.value)
        found = constant(expression(text))
        if found is None:
            return None
        result = complex(found)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
    return result.real if abs(result.imag) < 1e-12 and abs(result.real) < 1e300 else None
