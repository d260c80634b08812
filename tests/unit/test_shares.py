"""Shares of a batch: every sequence once, tokens balanced, prompts together, the same each time."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.batch import Sequence
from learner.shares import cut, share_out

TOKENS = st.lists(st.integers(2, 500), min_size=1, max_size=40)
GROUPS = st.lists(
    st.tuples(st.integers(1, 200), st.lists(st.integers(1, 300), min_size=1, max_size=8)), min_size=1, max_size=12
)


def group(number: int, prompt: int, completions: list[int]) -> list[Sequence]:
    ids = np.full(prompt, number)
    return [Sequence(ids, np.zeros(length, int), np.zeros(length), 0.0) for length in completions]


def batch(groups: list[tuple[int, list[int]]]) -> list[Sequence]:
    return [one for number, (prompt, completions) in enumerate(groups) for one in group(number, prompt, completions)]


def apart(tokens: list[int]) -> list[Sequence]:
    """Sequences of so many tokens, none of which shares its prompt."""
    return batch([(1, [width]) for width in tokens])


def computed(part: list[Sequence]) -> int:
    prompts = {tuple(one.prompt_ids.tolist()) for one in part}
    return sum(map(len, prompts)) + sum(len(one.completion_ids) - 1 for one in part)


@given(GROUPS, st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_every_sequence_is_in_one_share_and_in_its_mini_step(
    groups: list[tuple[int, list[int]]], mini_steps: int, ranks: int, packed: bool
) -> None:
    given_batch = batch(groups)
    shares = share_out(given_batch, mini_steps, ranks, packed=packed)
    assert len(shares) == ranks
    bounds = cut(len(given_batch), mini_steps)
    for number, (start, end) in enumerate(pairwise(bounds)):
        parts = [share.places[share.cuts[number] : share.cuts[number + 1]] for share in shares]
        assert sorted(place for part in parts for place in part) == list(range(start, end))
        assert all(part == sorted(part) for part in parts)
    assert all(len(share.cuts) == len(bounds) and share.cuts[-1] == len(share.places) for share in shares)
    assert shares == share_out(batch(groups), mini_steps, ranks, packed=packed)


@given(GROUPS, st.integers(1, 5), st.booleans())
def test_one_rank_has_the_batch_as_it_is(groups: list[tuple[int, list[int]]], mini_steps: int, packed: bool) -> None:
    whole = batch(groups)
    [share] = share_out(whole, mini_steps, 1, packed=packed)
    assert share.places == list(range(len(whole))) and share.cuts == cut(len(whole), mini_steps)


@given(st.lists(st.integers(2, 50), min_size=1, max_size=8), st.integers(2, 3), st.booleans())
def test_the_fullest_rank_has_at_most_four_thirds_of_the_best_division(
    tokens: list[int], ranks: int, packed: bool
) -> None:
    shares = share_out(apart(tokens), 1, ranks, packed=packed)
    fullest = max(sum(tokens[place] for place in share.places) for share in shares)

    def load(owners: tuple[int, ...]) -> int:
        return max(sum(t for t, owner in zip(tokens, owners, strict=True) if owner == rank) for rank in range(ranks))

    best = min(load(owners) for owners in product(range(ranks), repeat=len(tokens)))
    assert fullest <= best * (4 / 3 - 1 / (3 * ranks)) + 1e-9  # Graham 1969


@given(GROUPS, st.integers(2, 6))
def test_the_fullest_rank_computes_no_more_than_an_even_part_and_one_sequence(
    groups: list[tuple[int, list[int]]], ranks: int
) -> None:
    """Each cut between two ranks may repeat a prompt, so an even part is one of the tokens with those."""
    whole = batch(groups)
    shares = share_out(whole, 1, ranks, packed=True)
    fullest = max(computed([whole[place] for place in share.places]) for share in shares)
    repeated = (ranks - 1) * max(len(one.prompt_ids) for one in whole)
    assert fullest <= (computed(whole) + repeated) / ranks + max(one.width for one in whole)


def test_prompts_stay_together_as_far_as_the_balance_allows() -> None:
    whole = batch([(50, [40, 20, 60, 30])] * 8)
    for ranks in (2, 4, 3):
        shares = share_out(whole, 1, ranks, packed=True)
        loads = [computed([whole[place] for place in share.places]) for share in shares]
        split = sum(len({int(whole[place].prompt_ids[0]) for place in share.places}) for share in shares) - 8
        assert split <= (ranks - 1 if ranks == 3 else 0)
        assert max(loads) <= 1.1 * sum(loads) / ranks
    alike = [len(share.places) for share in share_out(whole, 1, 3, packed=False)]
    assert sorted(alike) == [10, 11, 11]


@pytest.mark.parametrize(
    ("count", "mini_steps", "bounds"), [(8, 4, [0, 2, 4, 6, 8]), (2, 4, [0, 1, 2]), (5, 1, [0, 5])]
)
def test_cuts(count: int, mini_steps: int, bounds: list[int]) -> None:
    assert cut(count, mini_steps) == bounds
