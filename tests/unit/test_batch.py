import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.batch import MicroBatch, Sequence, by_sequence, micro_batches, padding_share

shapes = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40)), min_size=1, max_size=40)
budgets = st.integers(1, 300)


def sequences(shape: list[tuple[int, int]]) -> list[Sequence]:
    """Every token id is unique, so a token that went astray is found."""
    result, next_id = [], 1
    for prompt, completion in shape:
        ids = np.arange(next_id, next_id + prompt + completion)
        next_id += prompt + completion
        result.append(Sequence(ids[:prompt], ids[prompt:], (ids[prompt:] / -1000).astype(np.float32), float(ids[0])))
    return result


@given(shapes, budgets)
def test_every_completion_token_is_predicted_by_the_token_before_it(shape: list[tuple[int, int]], budget: int) -> None:
    given_sequences = sequences(shape)
    batches = micro_batches(given_sequences, budget)
    seen: list[int] = []
    for batch in batches:
        # Ids count up inside a sequence, so the input at a position is the target less one.
        assert (batch.input_ids.reshape(-1)[batch.positions] == batch.targets - 1).all()
        assert batch.behaviour == pytest.approx(batch.targets / -1000)
        for index, row in zip(batch.indices, batch.input_ids, strict=True):
            sequence = given_sequences[index]
            whole = np.concatenate([sequence.prompt_ids, sequence.completion_ids])
            assert row.tolist() == whole[:-1].tolist() + [0] * (len(row) - sequence.width)
        seen += batch.targets.tolist()
        advantages = [given_sequences[index].advantage for index in batch.indices]
        assert batch.advantages.tolist() == np.repeat(advantages, batch.lengths).tolist()
    assert sorted(seen) == sorted(i for s in given_sequences for i in s.completion_ids.tolist())


@given(shapes, budgets)
def test_the_budget_holds_but_for_a_sequence_beyond_it(shape: list[tuple[int, int]], budget: int) -> None:
    for batch in micro_batches(sequences(shape), budget):
        assert batch.input_ids.size <= budget or len(batch.indices) == 1


@given(shapes, budgets)
def test_values_come_back_in_the_order_of_the_sequences(shape: list[tuple[int, int]], budget: int) -> None:
    given_sequences = sequences(shape)
    batches = micro_batches(given_sequences, budget)
    back = by_sequence(batches, [batch.targets.astype(np.float32) for batch in batches])
    assert [part.tolist() for part in back] == [s.completion_ids.tolist() for s in given_sequences]


@given(shapes, budgets)
@settings(max_examples=20)
def test_same_sequences_same_batches(shape: list[tuple[int, int]], budget: int) -> None:
    def indices(batches: list[MicroBatch]) -> list[list[int]]:
        return [batch.indices.tolist() for batch in batches]

    assert indices(micro_batches(sequences(shape), budget)) == indices(micro_batches(sequences(shape), budget))


def test_padding_is_counted_and_buckets_keep_it_small() -> None:
    rng = np.random.default_rng(0)
    mixed = sequences([(20, int(length)) for length in rng.integers(1, 200, 256)])
    bucketed = micro_batches(mixed, 2048)
    assert padding_share(bucketed) < 0.08
    assert padding_share(micro_batches(mixed, 10**9)) > 0.3
    assert padding_share(micro_batches(sequences([(4, 6), (2, 3)]), 100)) == pytest.approx(1 - 13 / 18)


def test_equal_lengths_keep_their_order() -> None:
    batches = micro_batches(sequences([(2, 3)] * 5), 8)
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
