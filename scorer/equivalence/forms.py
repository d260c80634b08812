"""The forms of an answer: a quantity, a list, a matrix, a region of the reals, a relation, a ratio, words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Form: TypeAlias = "Quantity | Listed | Matrix | Region | Relation | Ratio | Words"


@dataclass(frozen=True)
class Quantity:
    """`Quantity("5", "cm")`: a scalar and what it counts; unit "%", "deg", a currency, or words, "" for none."""

    scalar: str
    unit: str = ""


@dataclass(frozen=True)
class Listed:
    """Several answers. `brackets` are those around it: "" as in 1, 2; "()" and so on; "{}" is a set."""

    items: tuple[Form, ...]
    brackets: str = ""
    text: str = ""


@dataclass(frozen=True)
class Matrix:
    """Entries by rows, and how it is written; without rows: a sum or product of matrices."""

    rows: tuple[tuple[Form, ...], ...]
    text: str


@dataclass(frozen=True)
class Region:
    """A set of reals as it is written: unions and differences of intervals, inequalities, set builders."""

    text: str


@dataclass(frozen=True)
class Relation:
    """`Relation("y", "=", "2 x")`: sides and operators of a chain, from left to right."""

    sides: tuple[str, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Ratio:
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    text: str


def text_of(form: Form) -> str:
    """A form as text again."""
    match form:
        case Words(text) | Region(text) | Listed(_, _, text) | Matrix(_, text):
            return text
        case Quantity(scalar, unit):
            return f"{scalar} {unit}".strip()
        case Relation(sides, operators):
            return " ".join(part for pair in zip(sides, [*operators, ""], strict=True) for part in pair)
        case Ratio(parts):
            return ":".join(parts)
    return ""
