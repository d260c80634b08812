"""math-verify as the engine: one expression is read, two are compared.

What it reads is one scalar at a time; lists, sets, units and words are taken apart before (forms). Its calls may hang
or exhaust the memory: they run in a child of scorer.sandbox alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from scorer.equivalence.plain_numbers import number

_DEGREES = re.compile(r"([-+]?[\d.]+|[-+]?\\frac\{\d+\}\{\d+\})\s*\\deg(?![a-zA-Z])")
_NAMED_INDEX = re.compile(r"_\s*\{?\s*\\([a-zA-Z]+)\s*\}?")


@lru_cache(maxsize=512)
def expression(text: str) -> Any:
    """The sympy expression of one scalar, None where it is none."""
    from math_verify import parse
    from sympy import Basic, MatrixBase

    text = _DEGREES.sub(r"(\\frac{\\pi \1}{180})", text).replace(r"\deg", r"^{\circ}")
    text = _NAMED_INDEX.sub(r"_{\1}", text)
    text = re.sub(r"\\cr(?![a-zA-Z])", r"\\\\", text)
    text = re.sub(r"\\(?:dollar|euro|pound|yen) ?", "", text)
    found = parse(f"\\boxed{{{text}}}", _targets(), parsing_timeout=None)
    return found[0] if found and isinstance(found[0], Basic | MatrixBase) else None


@lru_cache(maxsize=1)
def _targets() -> list[Any]:
    """Units are taken off before (forms): here m is a name."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import ExprExtractionConfig, LatexExtractionConfig

    written = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    return [LatexExtractionConfig(normalization_config=written), ExprExtractionConfig()]


def equal(right: Any, given: Any) -> bool:
    """Whether math-verify finds two expressions equal. What it cannot compare is not."""
    from math_verify import verify

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
    return None not in expressions and equal(*expressions)


def value(text: str) -> float | None:
    """A constant as a float; None for what has a variable, is no number or not finite."""
    plain = number(text)
    try:
        if plain is not None:
            return float(plain.value)
        found = expression(text)
        if found is None or getattr(found, "free_symbols", True):
            return None
        result = complex(found.evalf(20))
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
    return result.real if abs(result.imag) < 1e-12 and abs(result.real) < 1e300 else None
