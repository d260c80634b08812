"""Answers of several parts: matrices, lists in any order or in theirs, ratios. `same` compares the parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scorer.equivalence import engine
from scorer.equivalence.forms import Form, Listed, Matrix, Ratio, text_of

Same = Callable[[Form, Form], str | None]


def same_matrix(right: Form, given: Form, same: Same) -> str | None:
    if isinstance(right, Matrix) and isinstance(given, Matrix) and not (right.rows and given.rows):
        return "same matrix" if engine.same(right.text, given.text) else None
    rows = [_rows(form) for form in (right, given)]
    if rows[0] is None or rows[1] is None or [len(row) for row in rows[0]] != [len(row) for row in rows[1]]:
        return None
    if all(same(a, b) for one, other in zip(*rows, strict=True) for a, b in zip(one, other, strict=True)):
        return "entry by entry"
    return None


def _rows(form: Form) -> tuple[tuple[Form, ...], ...] | None:
    """A matrix; what is one column or row, and a tuple, as one row."""
    if isinstance(form, Matrix):
        if not form.rows:
            return None
        return form.rows if any(len(row) > 1 for row in form.rows) else (tuple(row[0] for row in form.rows if row),)
    return (form.items,) if isinstance(form, Listed) and form.brackets in ("()", "[]") else None


def same_list(right: Form, given: Form, same: Same) -> str | None:
    if not isinstance(right, Listed):
        if isinstance(given, Listed) and given.brackets == "{}" and len(given.items) == 1:
            return same(right, given.items[0])
        return None
    if not isinstance(given, Listed):
        return same(right.items[0], given) if len(right.items) == 1 and right.brackets in ("", "{}") else None
    if right.brackets in ("", "{}") and given.brackets in ("", "{}"):
        return "same answers in any order" if _matched(right.items, given.items, same) else None
    ordered = right.brackets == given.brackets or (right.brackets, given.brackets) in (("", "()"), ("()", ""))
    if not ordered or len(right.items) != len(given.items):
        return None
    if all(same(a, b) for a, b in zip(right.items, given.items, strict=True)):
        return "part by part"
    return None


def _matched(right: Sequence[Form], given: Sequence[Form], same: Same) -> bool:
    """Every answer of one list is one of the other."""
    left = list(given)
    if len(right) != len(left):
        return False
    for wanted in right:
        found = next((item for item in left if same(wanted, item)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def same_ratio(right: Form, given: Form) -> str | None:
    parts = [form.parts if isinstance(form, Ratio) else (text_of(form), "1") for form in (right, given)]
    if len(parts[0]) != len(parts[1]):
        return None
    a, b = parts[0][0], parts[1][0]
    equal = all(
        engine.same(f"({x}) \\cdot ({b})", f"({y}) \\cdot ({a})")
        for x, y in zip(parts[0][1:], parts[1][1:], strict=True)
    )
    return "same ratio" if equal else None
