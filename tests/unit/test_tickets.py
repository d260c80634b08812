"""The order of prompts and the bound on tickets in flight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.tickets import PromptOrder, capacity, most_between_commits


@given(rows=st.integers(1, 50), seed=st.integers(0, 99), epoch=st.integers(0, 3))
def test_every_epoch_has_every_row_once(rows: int, seed: int, epoch: int) -> None:
    order = PromptOrder(rows, seed)
    assert sorted(order.row(epoch * rows + i) for i in range(rows)) == list(range(rows))


@given(seed=st.integers(0, 99), ids=st.lists(st.integers(0, 500), min_size=1))
def test_a_ticket_means_the_same_row_whenever_it_is_asked(seed: int, ids: list[int]) -> None:
    jumping, fresh = PromptOrder(37, seed), [PromptOrder(37, seed).row(id) for id in ids]
    assert [jumping.row(id) for id in ids] == fresh


def test_seeds_and_epochs_differ() -> None:
    def rows(seed: int, epoch: int) -> list[int]:
        return [PromptOrder(100, seed).row(100 * epoch + i) for i in range(100)]

    assert len({tuple(rows(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert rows(0, 0) != list(range(100)), "the order is shuffled"


def test_no_prompts() -> None:
    with pytest.raises(ValueError, match="no prompts"):
        PromptOrder(0, 0)


@given(groups=st.integers(1, 6), staleness=st.integers(0, 4), steps=st.integers(1, 12), data=st.data())
def test_capacity_keeps_staleness_within_its_bound(
    groups: int, staleness: int, steps: int, data: st.DataObject
) -> None:
    """Given tickets that come back in the order in which they were issued, however the actors batch them."""
    in_flight: list[int] = []
    worst = 0
    for step in range(steps):
        in_flight += [step] * (capacity(groups, staleness) - len(in_flight))
        batch, in_flight = in_flight[:groups], in_flight[groups:]
        worst = max(worst, step - min(batch))
    assert worst <= staleness
    assert worst == min(staleness, steps - 1), "and uses what it allows"


def test_over_sampling_has_more_in_flight_and_never_fewer() -> None:
    assert capacity(8, 0, 0.5) == 12
    assert capacity(8, 1, 0.1) == 18  # 17.6
    assert most_between_commits(8, 0, 10, 0.5) == 2 * (12 + 10 * 12)
