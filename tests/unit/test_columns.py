"""Worked columns are true line by line, and lead to the total."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.columns import running_total

WHOLE = st.integers(-999, 999)


def value(step: str) -> int:
    """What one step arrives at, read as a person would: every line checked, the digits put together again."""
    negative = step.startswith("-(")
    units, rest = step.removeprefix("-(").rstrip(")").split(",")
    digits = []
    for line in (units, rest):
        terms, result = line.split("=")
        # Leading zeros only tell whether the units borrow: int() reads over them.
        assert sum(int(term) for term in re.findall(r"[+-]?\d+", terms)) == int(result), line
        digits.append(int(result))
    total = 10 * digits[1] + digits[0] % 10
    return -total if negative else total


@given(WHOLE, st.lists(WHOLE, min_size=1, max_size=4))
def test_every_line_holds_and_every_step_is_the_running_total(first: int, changes: list[int]) -> None:
    steps = running_total(first, changes).split(";")
    totals = [first + sum(changes[: count + 1]) for count in range(len(changes))]
    assert [value(step) for step in steps] == totals


@given(WHOLE, WHOLE)
def test_units_never_take_more_than_one_carry_or_borrow(first: int, change: int) -> None:
    units, rest = running_total(first, [change]).strip("-()").split(",")
    assert 0 <= int(units.split("=")[1]) <= 18
    assert re.fullmatch(r"\d+[+-]\d+[+-][01]=\d+", rest)


@pytest.mark.parametrize(
    ("first", "change", "columns"),
    [
        (25, 83, "5+3=08,2+8+0=10"),
        (84, -37, "14-7=07,8-3-1=04"),
        (33, -84, "-(04-3=01,8-3-0=05)"),
        (-33, -84, "-(3+4=07,3+8+0=11)"),
        (-33, 84, "04-3=01,8-3-0=05"),
        (180, -71, "10-1=09,18-7-1=10"),
        (7, -7, "07-7=00,0-0-0=00"),
    ],
)
def test_columns_as_on_paper(first: int, change: int, columns: str) -> None:
    assert running_total(first, [change]) == columns
