"""What a quantity counts: whether two units can be the same, and by how much one is the other. pint knows them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

CURRENCIES = {
    "dollar": "dollar",
    "dollars": "dollar",
    "usd": "dollar",
    "euro": "euro",
    "euros": "euro",
    "pound": "pound",
}
_SQUARE_UNITS = re.compile(r"\b(square|cubic|sq\.?)\s+units?\b|\bunits?\b(\s*\^?\s*[23])?")


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint

    return pint.UnitRegistry()


@lru_cache(maxsize=256)
def known(unit: str) -> Any:
    """The unit as pint has it; None for apples, for what has no dimension, and for "square units"."""
    unit = re.sub(r"\bof\b.*", "", unit.replace("*", " ")).strip()
    if not unit or len(unit) > 60 or _SQUARE_UNITS.search(unit) or not re.fullmatch(r"[a-zA-Z0-9 .^/()-]+", unit):
        return None
    try:
        found = _registry().parse_units(unit)
    except Exception:  # pint has no base of its own for what it cannot read
        return None
    return None if found.dimensionless else found


def factor(right: str, given: str) -> float | None:
    """What a number in the given unit is multiplied with to be in the right one; None: they cannot be the same.

    A unit that one of them lacks, or that pint does not know, makes no difference.
    """
    money = CURRENCIES.get(right.lower()), CURRENCIES.get(given.lower())
    if None not in money:
        return 1.0 if money[0] == money[1] else None
    units = known(right), known(given)
    if None in units:
        return 1.0
    try:
        return float((1 * units[1]).to(units[0]).magnitude)
    except Exception:  # of another dimension
        return None
