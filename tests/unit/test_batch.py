import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.batch import MicroBatch, Sequence, by_sequence, filled_up, micro_batches
from learner.padding import attention_padding_share, like_widths, padding_share

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=5)
shapes = st.lists(st.tuples(st.integers(1, 30), lengths), min_size=1, max_size=15)
budgets = st.integers(1, 300)


def sequences(shape: list[tuple[int, int]]) -> list[Sequence]:
    """Every token id is unique, so a token that went astray is found."""
    result, next_id = [], 1
    for prompt, completion in shape:
        ids = np.arange(next_id, next_id + prompt + completion)
        next_id += prompt + completion
        result.append(Sequence(ids[:prompt], ids[prompt:], (ids[prompt:] / -1000).astype(np.float32), float(ids[0])))
    return result


def groups(shape: list[tuple[int, list[int]]]) -> list[Sequence]:
    """Prompts with several completions; the first ones of all prompts, then the second ones."""
    most = max(len(completions) for _, completions in shape)
    prompts = sequences([(prompt, most * 40) for prompt, _ in shape])
    return [
        replace(
            whole,
            prompt_ids=whole.prompt_ids.astype(np.int32 if turn % 2 else np.int64),
            completion_ids=whole.completion_ids[turn * 40 :][: completions[turn]],
            behaviour=whole.behaviour[turn * 40 :][: completions[turn]],
            advantage=whole.advantage + turn,
        )
        for turn in range(most)
        for whole, (_, completions) in zip(prompts, shape, strict=True)
        if turn < len(completions)
    ]


def laid_out(batch: MicroBatch) -> list[list[int]]:
    """The input of each sequence, from its row or its tokens in the one row."""
    if batch.row is None:
        return batch.input_ids.tolist()
    ids, positions = batch.input_ids[0], batch.row.position_ids
    assert batch.input_ids.shape == (1, batch.row.own.sum()) and len(set(ids.tolist())) == len(ids) == len(positions)
    parts = np.split(batch.row.places, np.cumsum(batch.row.widths)[:-1])
    assert all(positions[part].tolist() == list(range(len(part))) for part in parts)
    return [ids[part].tolist() for part in parts]


@given(shapes, budgets, st.booleans())
def test_every_completion_token_is_predicted_by_the_token_before_it(
    shape: list[tuple[int, list[int]]], budget: int, packed: bool
) -> None:
    given_sequences = groups(shape)
    seen: list[int] = []
    for batch in micro_batches(given_sequences, budget, packed=packed):
        before = [[s.prompt_ids[-1], *s.completion_ids[:-1]] for s in (given_sequences[i] for i in batch.indices)]
        assert batch.input_ids.reshape(-1)[batch.positions].tolist() == list(itertools.chain(*before))
        assert batch.behaviour == pytest.approx(batch.targets / -1000)
        for index, row in zip(batch.indices, laid_out(batch), strict=True):
            sequence = given_sequences[index]
            whole = np.concatenate([sequence.prompt_ids, sequence.completion_ids])
            assert row == whole[:-1].tolist() + [0] * (len(row) - sequence.width)
        assert batch.real_tokens == np.count_nonzero(batch.input_ids)
        assert batch.sequence_tokens == sum(given_sequences[index].width for index in batch.indices)
        seen += batch.targets.tolist()
        advantages = [given_sequences[index].advantage for index in batch.indices]
        assert batch.advantages.tolist() == np.repeat(advantages, batch.lengths).tolist()
    assert sorted(seen) == sorted(i for s in given_sequences for i in s.completion_ids.tolist())


@given(shapes, budgets, st.booleans())
def test_the_budget_holds_but_for_a_sequence_beyond_it(
    shape: list[tuple[int, list[int]]], budget: int, packed: bool
) -> None:
    for batch in micro_batches(groups(shape), budget, packed=packed):
        assert batch.input_ids.size <= budget or len(batch.indices) == 1


@given(
    st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=3)), min_size=1, max_size=4),
    st.integers(18, 60),
    st.booleans(),
)
def test_packed_batches_are_as_few_as_can_be_and_the_largest_as_small(
    shape: list[tuple[int, list[int]]], budget: int, together: bool
) -> None:
    """Against all ways to cut the sequences, by prompt and length, into runs within the budget."""
    if not together:
        shape = [(prompt, [completion]) for prompt, completions in shape for completion in completions]
    shape = [(prompt, sorted(completions, reverse=True)) for prompt, completions in shape]
    batches = micro_batches(groups(shape), budget, packed=True)
    sizes = [batch.sequence_tokens if batch.row is None else batch.real_tokens for batch in batches]
    order = sorted(shape, key=lambda group: -group[0] - group[1][0])
    listed = [(number, prompt, c) for number, (prompt, cs) in enumerate(order) for c in cs]

    def tokens(run: list[tuple[int, int, int]]) -> int:
        return sum({number: prompt for number, prompt, _ in run}.values()) + sum(c - 1 for _, _, c in run)

    fewest = []
    for count in range(1, len(listed) + 1):
        for cuts in itertools.combinations(range(1, len(listed)), count - 1):
            bounds = [0, *cuts, len(listed)]
            parts = [tokens(listed[a:b]) for a, b in itertools.pairwise(bounds)]
            if max(parts) <= budget:
                fewest.append(parts)
        if fewest:
            break
    assert len(sizes) == count
    assert max(sizes) == min(max(parts) for parts in fewest)


@given(shapes, budgets, st.booleans())
def test_values_come_back_in_the_order_of_the_sequences(
    shape: list[tuple[int, list[int]]], budget: int, packed: bool
) -> None:
    given_sequences = groups(shape)
    batches = filled_up(micro_batches(given_sequences, budget, packed=packed), 3, packed=packed)
    back = by_sequence(batches, [batch.targets.astype(np.float32) for batch in batches])
    assert [part.tolist() for part in back] == [s.completion_ids.tolist() for s in given_sequences]


@given(shapes, budgets, st.booleans())
@settings(max_examples=20)
def test_same_sequences_same_batches(shape: list[tuple[int, list[int]]], budget: int, packed: bool) -> None:
    def indices() -> list[list[int]]:
        return [batch.indices.tolist() for batch in micro_batches(groups(shape), budget, packed=packed)]

    assert indices() == indices()


def test_the_last_micro_batch_is_not_a_leftover() -> None:
    batches = micro_batches(sequences([(4, 7)] * 11), 50, packed=True)  # 11 x 10 tokens: 50, 50, 10 were the greedy way
    assert [batch.input_ids.size for batch in batches] == [40, 40, 30]


def test_padding_is_counted_and_buckets_keep_it_small() -> None:
    rng = np.random.default_rng(0)
    mixed = sequences([(20, int(length)) for length in rng.integers(1, 200, 256)])
    bucketed = micro_batches(mixed, 2048)
    assert padding_share(bucketed) == attention_padding_share(bucketed) < 0.08
    assert padding_share(micro_batches(mixed, 10**9)) > 0.3
    assert padding_share(micro_batches(sequences([(4, 6), (2, 3)]), 100)) == pytest.approx(1 - 13 / 18)


def test_packed_nothing_is_padding_but_a_little_of_the_attention() -> None:
    rng = np.random.default_rng(0)
    packed = micro_batches(sequences([(20, int(length)) for length in rng.integers(1, 200, 256)]), 10**9, packed=True)
    assert padding_share(packed) == 0.0
    assert 0.0 < attention_padding_share(packed) < 0.06
    three = micro_batches(sequences([(4, 7), (4, 6), (2, 3)]), 100, packed=True)  # 10 and 9 together, 4 alone
    assert attention_padding_share(three) == pytest.approx(1 - 23 / 24)


def test_a_prompt_is_computed_once_in_a_batch_and_attended_in_each_sequence() -> None:
    (batch,) = micro_batches(groups([(10, [5, 1, 4]), (2, [4])]), 100, packed=True)
    assert batch.input_ids.size == batch.real_tokens == (10 + 4 + 3 + 0) + (2 + 3)
    assert batch.sequence_tokens == 14 + 13 + 10 + 5
    assert padding_share([batch]) == 0.0
    assert attention_padding_share([batch]) == pytest.approx(1 - 42 / (2 * 14 + 10 + 5))
    assert [len(b.indices) for b in micro_batches(groups([(10, [5, 5, 5])]), 18, packed=True)] == [2, 1]  # 18 and 14


def test_a_batch_with_shared_prompts_is_packed_though_its_rows_are_alike() -> None:
    assert [b.row is None for b in micro_batches(groups([(10, [5, 5, 5])]), 100, packed=True)] == [False]
    assert [b.row is None for b in micro_batches(groups([(10, [5])] * 3), 100, packed=True)] == [True]


def test_the_largest_comes_first() -> None:
    """By what attention computes, where tokens are alike."""
    batches = micro_batches(groups([(1, [40, 40]), (30, [9] * 5)]), 80, packed=True)
    assert [batch.sequence_tokens for batch in batches] == [190, 80]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_runs_of_like_widths_are_all_of_them_and_alike(widths: list[int]) -> None:
    values = np.array(widths)
    runs = like_widths(values)
    assert np.concatenate([values[run] for run in runs]).tolist() == widths
    assert all(values[run].min() >= 0.9 * values[run].max() for run in runs)


@pytest.mark.parametrize("packed", [False, True])
def test_empty_micro_batches_fill_up_the_count(packed: bool) -> None:
    batches = micro_batches(sequences([(2, 3)] * 5), 8, packed=packed)
    more = filled_up(batches, len(batches) + 2, packed=packed)
    assert more[: len(batches)] == batches and len(more) == len(batches) + 2
    assert all(batch.input_ids.size and not len(batch.targets) and not batch.real_tokens for batch in more[-2:])
    assert filled_up(batches, 1, packed=packed) == batches


@pytest.mark.parametrize("packed", [False, True])
def test_equal_lengths_keep_their_order(packed: bool) -> None:
    batches = micro_batches(sequences([(2, 3)] * 5), 8, packed=packed)
    assert [index for batch in batches for index in batch.indices] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("prompt", "completion", "behaviour", "says"),
    [(0, 3, 3, "0 prompt"), (3, 0, 0, "0 completion"), (3, 4, 3, "3 log-probabilities for 4")],
)
def test_sequences_that_cannot_be_trained_on(prompt: int, completion: int, behaviour: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Sequence(np.arange(prompt), np.arange(completion), np.zeros(behaviour), 0.0)


def test_nothing_to_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="no sequences"):
        micro_batches([], 100)
