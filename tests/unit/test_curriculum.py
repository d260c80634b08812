"""Prompts by difficulty."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.curriculum import LEAST, ByDifficulty


def questions(rows: int) -> list[str]:
    return [f"question {row}" for row in range(rows)]


def epoch(order: ByDifficulty, number: int, rows: int) -> list[int]:
    ids = range(number * rows, (number + 1) * rows)
    for id in ids:
        order.planned(id)
    return [order.row(id) for id in ids]


def met(order: ByDifficulty, row: int, share: float, times: int = 30) -> None:
    for _ in range(times):
        order.met(f"question {row}", share)


@given(rows=st.integers(1, 60), seed=st.integers(0, 99))
def test_before_anything_was_met_every_row_comes_once(rows: int, seed: int) -> None:
    assert sorted(epoch(ByDifficulty(questions(rows), seed), 0, rows)) == list(range(rows))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(0, 99))
def test_a_row_comes_as_often_as_the_policy_fails_at_it(shares: list[float], seed: int) -> None:
    rows = len(shares)
    order = ByDifficulty(questions(rows), seed)
    for row, share in enumerate(shares):
        met(order, row, share)
    came = Counter(epoch(order, 1, rows))
    weights = [max(1 - share, LEAST) for share in shares]
    for row, weight in enumerate(weights):
        wanted = rows * weight / sum(weights)
        assert np.floor(wanted - 1e-4) <= came[row] <= np.ceil(wanted + 1e-4)


def test_the_rate_is_a_running_mean_of_what_was_met() -> None:
    order = ByDifficulty(questions(2), 0)
    slow = 0.0
    for share in (1.0, 0.5, 1.0):
        order.met("question 1", share)
        slow = 0.5 * slow + 0.5 * share
    order.met("a question of another data set", 1.0)
    assert order._solved.tolist() == pytest.approx([0.0, slow])


def test_an_epoch_may_be_issued_only_when_a_checkpoint_has_it() -> None:
    order = ByDifficulty(questions(4), 0)
    assert not order.planned(0)
    order.dump(0)
    order.saved()
    assert order.planned(3) and not order.planned(4)


def test_a_restart_keeps_what_was_planned_and_draws_the_next_epoch_alike() -> None:
    first = ByDifficulty(questions(9), 3)
    planned = epoch(first, 0, 9)
    met(first, 2, 1.0)
    state = first.dump(0)
    first.saved()
    again = ByDifficulty(questions(9), 3)
    again.restore(state)
    assert again.planned(8)
    assert epoch(again, 0, 9) == planned
    assert epoch(again, 1, 9) == epoch(first, 1, 9)


def test_old_epochs_are_forgotten() -> None:
    order = ByDifficulty(questions(5), 0)
    for number in range(50):
        epoch(order, number, 5)
        order.dump(oldest_ticket=number * 5)
    assert list(order._plans) == [49]


def test_a_checkpoint_of_other_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"knows 3 prompts, data.train has 4"):
        ByDifficulty(questions(4), 0).restore(ByDifficulty(questions(3), 0).dump(0))
