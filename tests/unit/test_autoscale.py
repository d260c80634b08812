"""The rule by which scorers come and go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.autoscale import Autoscaler, Rule

RULE = Rule(least=1, most=8, lag_each=10.0, pending_each=20.0, window_s=60.0)


@pytest.mark.parametrize(
    ("lag", "pending", "now", "wanted"),
    [
        (0, 0, 1, 1),  # never fewer than the least
        (10, 0, 1, 1),
        (10, 0, 8, 1),  # which the window delays
        (0, 21, 1, 1),  # within the tolerance
        (11, 0, 1, 2),
        (12, 0, 1, 2),
        (71, 0, 1, 8),
        (7000, 0, 1, 8),  # never more than the most
        (0, 100, 3, 5),  # busy ones stay and more come, though nothing waits
        (25, 100, 3, 5),
        (0, 0, 0, 1),
    ],
)
def test_the_moment(lag: int, pending: int, now: int, wanted: int) -> None:
    assert min(max(RULE.asks(lag, pending, now), RULE.least), RULE.most) == wanted


def test_more_at_once_fewer_after_the_window() -> None:
    scaler, now, seen = Autoscaler(RULE), 1, []
    for at, lag in [(0, 55), (15, 70), (30, 20), (45, 0), (60, 0), (76, 0), (91, 0), (106, 0), (121, 0)]:
        now = scaler.wanted(lag, 0, now, float(at))
        seen.append((at, now))
    assert seen == [(0, 6), (15, 7), (30, 7), (45, 7), (60, 7), (76, 2), (91, 1), (106, 1), (121, 1)]


def test_an_unknown_lag_changes_nothing() -> None:
    scaler = Autoscaler(RULE)
    assert [scaler.wanted(lag, 3, 5, at) for at, lag in enumerate((None, None))] == [5, 5]
    assert scaler.wanted(3, None, 5, 3.0) == 5


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.floats(0, 40)), min_size=1, max_size=60))
def test_it_keeps_its_bounds_and_ends_nobody_who_was_wished_for_lately(
    looks: list[tuple[int, int, float]],
) -> None:
    scaler, now, at, wishes = Autoscaler(RULE), 1, 0.0, []
    for lag, pending, after in looks:
        at += after
        wishes.append((at, RULE.asks(lag, pending, now)))
        before, now = now, scaler.wanted(lag, pending, now, at)
        recent = max(wish for time, wish in wishes if time >= at - RULE.window_s)
        assert RULE.least <= now <= RULE.most
        assert now >= min(before, recent, RULE.most), "within the window nobody ends"
        assert now >= min(wishes[-1][1], RULE.most), "what the moment asks for comes at once"
