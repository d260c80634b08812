"""Shares of a batch: every sequence once, tokens balanced, the same each time."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.shares import cut, share_out

TOKENS = st.lists(st.integers(1, 500), min_size=1, max_size=40)


@given(TOKENS, st.integers(1, 5), st.integers(1, 6))
def test_every_sequence_is_in_one_share_and_in_its_mini_step(tokens: list[int], mini_steps: int, ranks: int) -> None:
    shares = share_out(tokens, mini_steps, ranks)
    assert len(shares) == ranks
    bounds = cut(len(tokens), mini_steps)
    for number, (start, end) in enumerate(pairwise(bounds)):
        parts = [share.places[share.cuts[number] : share.cuts[number + 1]] for share in shares]
        assert sorted(place for part in parts for place in part) == list(range(start, end))
        assert all(part == sorted(part) for part in parts)
    assert all(len(share.cuts) == len(bounds) and share.cuts[-1] == len(share.places) for share in shares)


@given(TOKENS, st.integers(1, 5))
def test_one_rank_has_the_batch_as_it_is(tokens: list[int], mini_steps: int) -> None:
    [share] = share_out(tokens, mini_steps, 1)
    assert share.places == list(range(len(tokens))) and share.cuts == cut(len(tokens), mini_steps)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(2, 3))
def test_the_fullest_rank_has_at_most_four_thirds_of_the_best_division(tokens: list[int], ranks: int) -> None:
    fullest = max(sum(tokens[place] for place in share.places) for share in share_out(tokens, 1, ranks))

    def load(owners: tuple[int, ...]) -> int:
        return max(sum(t for t, owner in zip(tokens, owners, strict=True) if owner == rank) for rank in range(ranks))

    best = min(load(owners) for owners in product(range(ranks), repeat=len(tokens)))
    assert fullest <= best * (4 / 3 - 1 / (3 * ranks)) + 1e-9  # Graham 1969


@pytest.mark.parametrize(
    ("count", "mini_steps", "bounds"), [(8, 4, [0, 2, 4, 6, 8]), (2, 4, [0, 1, 2]), (5, 1, [0, 5])]
)
def test_cuts(count: int, mini_steps: int, bounds: list[int]) -> None:
    assert cut(count, mini_steps) == bounds
