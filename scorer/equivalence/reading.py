"""Reads one answer as a form."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import product

from scorer.equivalence.brackets import cut, inside, split
from scorer.equivalence.forms import Form, Listed, Matrix, Quantity, Ratio, Region, Relation, Words
from scorer.equivalence.latex import TEXT, one_spelling
from scorer.equivalence.plain_numbers import number
from scorer.equivalence.symbols import (
    COMMAS,
    INEQUALITIES,
    OPERATORS,
    PLAIN_WORD,
    RELATION,
    is_name,
    names,
    operators,
)

MAX_ITEMS = 64
MAX_DEPTH = 4
MAX_SIGNS = 4

_MATRIX = re.compile(r"\\begin\s*\{pmatrix\}(.*)\\end\s*\{pmatrix\}", re.S)
_ROWS = re.compile(r"\\cr(?![a-zA-Z])")
_CELLS = re.compile("&")
_CELL_OR_COMMA = re.compile("[&,]")
_CASES = re.compile(r"(?:(.*?)\s*=\s*)?\\begin\s*\{cases\}(.*)\\end\s*\{cases\}", re.S)
_IF = re.compile(r"^[\s,]*(?:\\text\s*\{\s*,?\s*(?:if|for|when|where)\s*\}|(?:if|for|when)(?![a-zA-Z]))?\s*")
_IN = re.compile(r"\\in(?![a-zA-Z])")
_EQUAL = re.compile("=")
_REGION_MARK = re.compile(r"\\(?:cup|setminus|cap|mathbb)(?![a-zA-Z])")
_BUILDER = re.compile(r"^\\\{.{0,40}?(?:\||\\mid|:)")
_RATIO = re.compile(r":")
_PM = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
_CURRENCY = re.compile(r"\\(dollar|euro|pound|yen)(?![a-zA-Z])")
_WORDS_AFTER = re.compile(r"(?<=[\d}])(?:\s+[a-zA-Z]+)+$")  # $18 per day
_SHORT_UNITS = "cm|mm|km|kg|mg|ml|mL|ft|yd|mi|lb|oz|hr|Hz|kW|kJ|kN|Pa|mph|kmph|inches|inch"
_UNIT = re.compile(  # possessive at its end: hostile letters cost no backtracking
    rf"(?P<scalar>.*?)\s*+(?P<unit>\\?%|\\deg(?![a-zA-Z])|(?:\\text\s*\{{[^{{}}]*\}}"
    rf"|(?<=[\d\s}}])(?:{_SHORT_UNITS})(?![a-zA-Z])|(?<=\s)[a-zA-Z]{{3,}}+\.?)"
    r"(?:[\s/.*]|\^\s*\{?-?\d\}?|\\cdot(?![a-zA-Z])|\\text\s*\{[^{}]*\}|[a-zA-Z]++\d?)*+)",
    re.S,
)
_GROUPED = re.compile(r"\d,\d{3}(?!\d)")
_NUMBER_AHEAD = re.compile(r"[-+\d.\\(]")


@lru_cache(maxsize=512)
def read(text: str, depth: int = 0) -> Form:
    """The form of an answer; what is nothing else is a Quantity without unit, or Words."""
    text = one_spelling(text)
    if depth > MAX_DEPTH or not text:
        return Words(text)
    if number(text) is not None:
        return Quantity(text)
    matrix = _MATRIX.fullmatch(text)
    if matrix and r"\begin" not in matrix[1]:
        rows = [row for row in _ROWS.split(matrix[1]) if row.strip()]
        return Matrix(tuple(tuple(read(cell, depth + 1) for cell in split(row, _CELLS)) for row in rows), text)
    only = TEXT.fullmatch(text)
    if only:
        return read(only[1], depth + 1)
    cases = _CASES.fullmatch(text)
    if cases and r"\begin" not in cases[2] and (not cases[1] or is_name(cases[1])):
        return Listed(tuple(_case(row, depth) for row in _ROWS.split(cases[2]) if row.strip()), text=text)
    unnamed = _without_name(text)
    if unnamed != text and (not RELATION.search(unnamed) or _BUILDER.match(unnamed)):
        return read(unnamed, depth + 1)
    signs = [] if text.startswith(r"\{") else _PM.findall(text)
    if 0 < len(signs) <= MAX_SIGNS and len(split(text, COMMAS)) == 1:
        return Listed(tuple(read(signed, depth + 1) for signed in _signed(text, signs)), text=text)
    if r"\begin" in text and not RELATION.search(text):
        return Matrix((), text)
    if _BUILDER.match(text) and RELATION.search(text):
        return Region(text)
    quantity = _quantity(text) if _GROUPED.search(text) else None
    if isinstance(quantity, Quantity) and number(quantity.scalar) is not None:
        return quantity
    parts = [part for part in split(text, COMMAS) if part]
    if len(parts) > MAX_ITEMS:
        return Words(text)
    if _is_region(text, parts):
        return Region(text)
    if len(parts) > 1:
        return Listed(_items(parts, depth), text=text)
    if parts and parts[0] != text:
        return read(parts[0], depth + 1)
    bracketed = inside(text)
    if bracketed is not None:
        brackets, content = bracketed
        parts = [part for part in split(content, COMMAS) if part]
        if brackets == "{}" or len(parts) > 1:
            return Listed(_items(parts, depth), brackets, text)
        if brackets == "()" and parts:
            return read(content, depth + 1)
    if len(split(text, RELATION)) > 1:
        return _relation(text)
    ratio = split(text, _RATIO)
    if len(ratio) > 1 and all(ratio) and not PLAIN_WORD.search(text):
        return Ratio(tuple(ratio))
    return _quantity(text)


def _items(parts: list[str], depth: int) -> tuple[Form, ...]:
    found: list[Form] = []
    for part in parts:
        item = read(part, depth + 1)
        if isinstance(item, Listed) and not item.brackets and _PM.search(one_spelling(part)):
            found += item.items
        else:
            found.append(item)
    return tuple(found)


def _signed(text: str, signs: list[str]) -> list[str]:
    """Every choice of signs; where one is -+, all are chosen together."""
    choices = [("+", "-")] * len(signs) if r"\mp" not in signs else []
    found = []
    for chosen in product(*choices) if choices else (("+",), ("-",)):
        turns = iter(chosen * len(signs) if not choices else chosen)
        flip = {"+": "-", "-": "+"}
        found.append(_PM.sub(lambda m: flip[next(turns)] if m[0] == r"\mp" else next(turns), text))  # noqa: B023
    return found


def _case(row: str, depth: int) -> Form:
    """One line of a system, or a value with its condition."""
    cells = [_IF.sub("", cell) for cell in split(row, _CELL_OR_COMMA) if _IF.sub("", cell)]
    return read(cells[0], depth + 1) if len(cells) == 1 else Listed(tuple(read(c, depth + 1) for c in cells), "()", row)


def _without_name(text: str) -> str:
    """Without `x \\in`, or `(a, b, c) =` and `A =` before what it is."""
    name, member = cut(text, _IN)
    if member and is_name(name):
        return member
    sides = split(text, _EQUAL)
    if len(sides) == 2 and is_name(sides[0]) and (sides[0].startswith("(") or _is_set(sides[1])):
        return sides[1]
    return text


def _is_set(text: str) -> bool:
    bracketed = inside(text)
    return bool(_REGION_MARK.search(text)) or (bracketed is not None and bracketed[0] == "{}")


def _is_region(text: str, parts: list[str]) -> bool:
    """Marks of sets, or nothing but inequalities of one name between numbers."""
    if _REGION_MARK.search(text):
        return True
    if not all(_is_relation(part, (*INEQUALITIES, r"\ne", "=")) for part in parts):
        return False
    if not any(_is_relation(part, (*INEQUALITIES, r"\ne")) for part in parts):
        return False
    return len({name for part in parts for name in names(part)}) == 1


def _is_relation(text: str, among: tuple[str, ...]) -> bool:
    return any(OPERATORS.get(m[0], m[0]) in among for m in RELATION.finditer(text))


def _relation(text: str) -> Form:
    sides, between = split(text, RELATION), operators(text)
    return Words(text) if "" in sides or len(between) != len(sides) - 1 else Relation(tuple(sides), tuple(between))


def _quantity(text: str) -> Form:
    currency = _CURRENCY.search(text)
    if currency:
        bare = _CURRENCY.sub("", TEXT.sub("", text)).strip()
        return Quantity(_WORDS_AFTER.sub("", bare), currency[1])
    found = _UNIT.fullmatch(text)
    if found and _NUMBER_AHEAD.match(text) and not PLAIN_WORD.search(TEXT.sub("", found["scalar"])):
        unit = found["unit"]
        if unit in (r"\%", "%"):
            return Quantity(found["scalar"].strip(), "%")
        if unit == r"\deg":
            return Quantity(found["scalar"].strip(), "deg")
        words = " ".join(re.sub(r"[{}\\]", "", TEXT.sub(r" \1 ", unit)).split()).strip(" .")
        return Quantity(found["scalar"].strip(), "deg" if words in ("degree", "degrees", "deg") else words)
    if PLAIN_WORD.search(TEXT.sub(r" \1 ", text)) and r"\frac" not in text:
        return Words(text)
    return Quantity(text)
