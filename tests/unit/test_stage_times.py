"""Seconds taken apart into what they are made of."""

from __future__ import annotations

import pytest

from tests.bench.stage_times.fit import nonnegative_fit


def test_what_seconds_are_made_of_is_found() -> None:
    rows = [([1.0, size], 0.25 + 0.003 * size) for size in (10, 100, 2000)]
    assert nonnegative_fit(rows) == pytest.approx([0.25, 0.003])


def test_errors_count_in_proportion() -> None:
    """A tenth of a second is much of the small one and nothing of the large one."""
    found = nonnegative_fit([([1.0, 1.0], 1.0), ([1.0, 1.0], 1.0), ([1.0, 1000.0], 600.1)])
    assert found[0] + found[1] == pytest.approx(1.0, abs=1e-6)


def test_nothing_takes_less_than_no_time() -> None:
    rows = [([1.0, size], max(0.001, 0.01 * size - 0.05)) for size in (10, 20, 30, 40)]
    fixed, each = nonnegative_fit(rows)
    assert fixed == 0.0 and 0.005 < each < 0.01
