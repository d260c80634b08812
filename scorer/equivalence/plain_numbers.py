"""Plain numbers: read exactly, and compared as far as they are written.

A decimal stands for whatever rounds to it. What is written with fewer digits than the other one agrees with it when it
is its rounding and has SIGNIFICANT digits at least: 2.65 for 2.653, 0.458 for 27/59, but not 0.3 for 1/3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext
from fractions import Fraction
from functools import lru_cache

SIGNIFICANT = 3
MAX_DIGITS = 400
MAX_EXPONENT = 400

_SIGN = r"(?P<sign>[-+]*)"
_DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)"
_DIGITS = re.compile(rf"{_SIGN}(?P<digits>{_DECIMAL})(?:(?:[eE]|\*10\^)\{{?\(?(?P<exponent>[-+]?\d+)\)?\}}?)?")
_POWER = re.compile(rf"{_SIGN}10\^\{{?\(?(?P<exponent>[-+]?\d+)\)?\}}?")
_FRACTION = re.compile(
    rf"{_SIGN}(?P<whole>\d+)?\\frac(?:\{{(?P<s>-?)(?P<top>\d+)\}}|(?P<top1>\d))(?:\{{(?P<bottom>\d+)\}}|(?P<bottom1>\d))"
)
_SLASH = re.compile(rf"{_SIGN}(?:(?P<whole>\d+) )?\(?(?P<top>-?\d+)\)?/\(?(?P<bottom>\d+)\)?")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])|(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,])")
_BASED = re.compile(  # a_{16} is a name
    r"\(?(?P<digits>(?=[a-zA-Z]*\d|[A-Z]{2})[0-9a-zA-Z]+)(?:\.(?P<behind>[0-9a-zA-Z]+))?\)?_\{?\(?(?P<base>\d{1,2})\)?\}?"
)


@dataclass(frozen=True)
class Plain:
    """An exact value, and how it was written: `Plain(Fraction(229, 500), 3, 3)` is 0.458."""

    value: Fraction
    places: int | None
    """Digits behind the point; below 0 for 1.2e5; None for what is exact: a fraction."""
    significant: int
    decimal: bool
    """Written with a point or an exponent."""


@lru_cache(maxsize=1024)
def number(text: str) -> Plain | None:
    """A whole number, decimal, fraction, mixed number or power of ten; None for anything else."""
    text = text.strip()
    if len(text) > MAX_DIGITS:
        return None
    text = _GROUPED.sub(lambda m: re.sub("[, ]", "", m[0]), text)
    spaced = re.sub(r"\s*(?:\\cdot|\\times|\*)\s*(?=10\s*\^)", "*", text).strip()
    while spaced.startswith("(") and spaced.endswith(")") and spaced.count("(") == 1:
        spaced = spaced[1:-1].strip()
    if (found := _SLASH.fullmatch(re.sub(r"\s*/\s*", "/", spaced))) and int(found["bottom"]):
        return _fraction(found["sign"], found["whole"], int(found["top"]), int(found["bottom"]))
    tight = re.sub(r"\s+", "", spaced) if not re.search(r"\d\s+\d", spaced) else spaced
    if found := _DIGITS.fullmatch(tight):
        return _decimal(_signed(found["sign"]), found["digits"], int(found["exponent"] or 0), bool(found["exponent"]))
    if found := _POWER.fullmatch(tight):
        return _decimal(_signed(found["sign"]), "1", int(found["exponent"]), False)
    if found := _FRACTION.fullmatch(tight):
        top, bottom = int(found["top"] or found["top1"]), int(found["bottom"] or found["bottom1"])
        if bottom:
            return _fraction(found["sign"] + (found["s"] or ""), found["whole"], top, bottom)
    if (found := _BASED.fullmatch(tight)) and 2 <= int(found["base"]) <= 36:
        base, behind = int(found["base"]), found["behind"] or ""
        try:
            return Plain(Fraction(int(found["digits"] + behind, base), base ** len(behind)), None, 99, False)
        except ValueError:
            return None
    return None


def based(text: str) -> bool:
    """Whether a number names its base."""
    return _BASED.fullmatch(re.sub(r"\s+", "", text)) is not None


def rounds_to(exact: Decimal | Fraction, written: Plain) -> bool:
    """Whether a value, rounded as far as the other is written, is that one."""
    if written.places is None:
        return False
    with localcontext() as context:
        context.prec = MAX_DIGITS
        value = Decimal(exact.numerator) / Decimal(exact.denominator) if isinstance(exact, Fraction) else exact
        target = Decimal(written.value.numerator) / Decimal(written.value.denominator)
        try:
            return value.quantize(Decimal(1).scaleb(-written.places), ROUND_HALF_UP) == target
        except InvalidOperation:  # of more than MAX_DIGITS digits
            return False


def close(right: Plain, given: Plain) -> bool:
    """Equal, or one is the other's rounding. A whole number is not rounded, 1.00e3 is not 1003."""
    if right.value == given.value:
        return True
    enough = SIGNIFICANT if given.decimal else SIGNIFICANT - 1  # 0.33 may stand for 1/3 where the gold says so
    if right.decimal and right.significant >= enough and rounds_to(given.value, right):
        return given.value.denominator != 1
    if given.decimal and given.significant >= SIGNIFICANT and rounds_to(right.value, given):
        return right.value.denominator != 1
    return False


def _signed(sign: str) -> int:
    return -1 if sign.count("-") % 2 else 1


def _fraction(sign: str, whole: str | None, top: int, bottom: int) -> Plain:
    value = Fraction(top, bottom)
    return Plain(_signed(sign) * (int(whole) + value if whole else value), None, 99, False)


def _decimal(sign: int, digits: str, exponent: int, scientific: bool) -> Plain | None:
    if abs(exponent) > MAX_EXPONENT:
        return None
    behind = len(digits.partition(".")[2])
    significant = len(digits.replace(".", "").lstrip("0")) or 1
    value = sign * Fraction(Decimal(digits)) * Fraction(10) ** exponent
    return Plain(value, behind - exponent, significant, "." in digits or scientific)
