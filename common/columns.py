"""Sums and differences worked out in columns, as on paper: the units, then the rest with its carry or borrow.

Every line is a fact about single digits whose operands stand next to each other, which a model of a million
parameters learns several times faster than whole sums. `25 + 83` is `5+3=08,2+8+0=10`: the units give 8 and
carry 0, the rest gives 10. `84 - 37` is `14-7=07,8-3-1=04`: a leading 1 says that the units borrow, and the rest
pays. `33 - 84` swaps, and says so: `-(04-3=01,8-3-0=05)`.
"""

from __future__ import annotations

from collections.abc import Iterable


def running_total(first: int, changes: Iterable[int]) -> str:
    """The steps of `first + changes[0] + ...`, each applied to the total before it, joined by `;`."""
    total, steps = first, []
    for change in changes:
        steps.append(_signed(total, change))
        total += change
    return ";".join(steps)


def _signed(total: int, change: int) -> str:
    larger, smaller = sorted((abs(total), abs(change)), reverse=True)
    same_sign = (total >= 0) == (change >= 0)
    columns = _sum(abs(total), abs(change)) if same_sign else _difference(larger, smaller)
    return f"-({columns})" if total + change < 0 else columns


def _sum(left: int, right: int) -> str:
    (left_rest, left_units), (right_rest, right_units) = divmod(left, 10), divmod(right, 10)
    units = left_units + right_units
    carry = units // 10
    rest = left_rest + right_rest + carry
    return f"{left_units}+{right_units}={units:02d},{left_rest}+{right_rest}+{carry}={rest:02d}"


def _difference(larger: int, smaller: int) -> str:
    (larger_rest, larger_units), (smaller_rest, smaller_units) = divmod(larger, 10), divmod(smaller, 10)
    borrow = int(larger_units < smaller_units)
    units = 10 * borrow + larger_units - smaller_units
    rest = larger_rest - smaller_rest - borrow
    return f"{borrow}{larger_units}-{smaller_units}={units:02d},{larger_rest}-{smaller_rest}-{borrow}={rest:02d}"
