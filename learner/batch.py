"""Sequences to micro-batches under a budget of tokens: packed into one row, or like lengths together and padded.

Packed, sequences lie end to end, none is padding, and a prompt of several is there once (`learner.rows`); the attention
keeps them apart (`learner.attention`). Padded, each has a row. There is no attention mask then: padding stands to the
right, so under a causal mask no real token ever sees it. Either way only the positions that predict completion tokens
leave the micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learner.rows import Row
from learner.runs import by_prompt, end_to_end, evened, in_rows, shared_with_last

_NOT_WORTH_PACKING = 0.02  # of the tokens: taking attention apart costs a small model 3 %, a large one less than 1 %


@dataclass(frozen=True)
class Sequence:
    """One completion with its prompt. Example: prompt [5, 6], completion [7, 8, 2], advantage 0.4."""

    prompt_ids: npt.NDArray[np.integer]
    """[P], P >= 1: the first completion token needs a position that predicts it."""
    completion_ids: npt.NDArray[np.integer]
    """[C], C >= 1."""
    behaviour: npt.NDArray[np.floating]
    """[C], the sampler's log-probabilities."""
    advantage: float
    """Of every token of the completion."""

    def __post_init__(self) -> None:
        if len(self.prompt_ids) == 0 or len(self.completion_ids) == 0:
            raise ValueError(
                f"a sequence of {len(self.prompt_ids)} prompt and {len(self.completion_ids)} completion tokens "
                "cannot be trained on; both need at least one, drop it before the batch"
            )
        if len(self.behaviour) != len(self.completion_ids):
            raise ValueError(
                f"{len(self.behaviour)} log-probabilities for {len(self.completion_ids)} completion tokens; "
                "the sampler must give one for each"
            )

    @property
    def width(self) -> int:
        """Tokens that are fed to the model: all but the last, which is only predicted."""
        return len(self.prompt_ids) + len(self.completion_ids) - 1

    @property
    def prompt(self) -> bytes:
        """Equal where prompts are."""
        return self.prompt_ids.astype(np.int64).tobytes()


EMPTY = np.zeros(0, np.float32)


@dataclass(frozen=True)
class MicroBatch:
    """S sequences with T completion tokens in all; flat arrays hold sequence after sequence.

    Padded, B = S rows as wide as the longest; packed, B = 1 row of all their tokens, shared prompts once.
    """

    indices: npt.NDArray[np.int64]
    """[S], places of the sequences in the list that was batched."""
    input_ids: npt.NDArray[np.int64]
    """[B, L]"""
    row: Row | None
    """How the sequences lie in a packed row; None when padded."""
    lengths: npt.NDArray[np.int64]
    """[S], completion tokens of each sequence; they sum to T."""
    positions: npt.NDArray[np.int64]
    """[T], places in the flattened [B * L] input whose output predicts the targets; the last token of a shared prompt
    predicts several."""
    targets: npt.NDArray[np.int64]
    """[T], completion tokens."""
    behaviour: npt.NDArray[np.float32]
    """[T]"""
    advantages: npt.NDArray[np.float32]
    """[T]"""
    real_tokens: int
    """Tokens of `input_ids` that are not padding."""
    sequence_tokens: int
    """Tokens of all sequences, each with its whole prompt."""


def micro_batches(sequences: SequenceOf[Sequence], token_budget: int, *, packed: bool = False) -> list[MicroBatch]:
    """Batches with B * L <= `token_budget`, as few as possible, largest first; same input, same batches.

    Largest first, so a batch that does not fit into memory fails at once and not at the end of a step. A sequence
    longer than the budget gets a micro-batch of its own. They are about equal in size, so that none is a leftover.
    With `packed`, sequences of one prompt are neighbours; where a cut comes between them, both batches have the prompt.
    Batches whose padded rows would hardly be more tokens are not packed. Raises ValueError without sequences.
    """
    if not sequences:
        raise ValueError("no sequences to batch; wait for a scored group")
    if token_budget < 1:
        raise ValueError(f"token_budget = {token_budget}; it counts tokens, 8192 is usual")
    # sorted() is stable, so equal lengths keep their order and the result does not depend on a hash.
    order = sorted(range(len(sequences)), key=lambda index: -sequences[index].width)
    if not packed:
        widths = [sequences[index].width for index in order]
        return [_pad(sequences, order[run]) for run in evened(lambda limit: in_rows(widths, limit), token_budget)]
    prompts = [sequence.prompt for sequence in sequences]
    order = [index for group in by_prompt(order, prompts) for index in group]
    widths = [sequences[index].width for index in order]
    shared = shared_with_last(order, prompts, [len(sequence.prompt_ids) for sequence in sequences])
    result = []
    for run in evened(lambda limit: end_to_end(widths, shared, limit), token_budget):
        row = Row(np.array(widths[run]), np.array([0, *shared[run][1:]]))
        worth = _is_worth_packing(row, token_budget)
        result.append(_pack(sequences, order[run], row) if worth else _pad(sequences, order[run]))
    return sorted(result, key=lambda batch: -batch.sequence_tokens)


def _is_worth_packing(row: Row, budget: int) -> bool:
    rows = len(row.widths) * int(row.widths.max())
    return rows > budget or int(row.own.sum()) < (1 - _NOT_WORTH_PACKING) * rows


def _pad(sequences: SequenceOf[Sequence], indices: list[int]) -> MicroBatch:
    widths = [sequences[index].width for index in indices]
    input_ids = np.zeros((len(indices), max(widths)), dtype=np.int64)
    for tokens, index in zip(input_ids, indices, strict=True):
        tokens[: sequences[index].width] = _fed(sequences[index])
    places = [np.arange(width) + start * max(widths) for start, width in enumerate(widths)]
    return _micro_batch(sequences, indices, input_ids, places, None)


def _pack(sequences: SequenceOf[Sequence], indices: list[int], row: Row) -> MicroBatch:
    own = [_fed(sequences[index])[shared:] for index, shared in zip(indices, row.shared, strict=True)]
    places = np.split(row.places, np.cumsum(row.widths)[:-1])
    return _micro_batch(sequences, indices, np.concatenate(own)[None], places, row)


def _fed(sequence: Sequence) -> npt.NDArray[np.int64]:
    return np.concatenate([sequence.prompt_ids, sequence.completion_ids[:-1]]).astype(np.int64)


def _micro_batch(
    sequences: SequenceOf[Sequence],
    indices: list[int],
    input_ids: npt.NDArray[np.int64],
    places: SequenceOf[npt.NDArray[np.int64]],
    row: Row | None,
) -> MicroBatch:
    """`places`: of each sequence's tokens in the flattened `input_ids`."""
    chosen = [sequences[index] for index in indices]
    lengths = np.array([len(sequence.completion_ids) for sequence in chosen], dtype=np.int64)
    tokens = sum(sequence.width for sequence in chosen)
    return MicroBatch(
        indices=np.array(indices, dtype=np.int64),
        input_ids=input_ids,
        row=row,
        lengths=lengths,
        positions=np.concatenate([own[-length:] for own, length in zip(places, lengths, strict=True)]),
        targets=np.concatenate([sequence.completion_ids for sequence in chosen]).astype(np.int64),
        behaviour=np.concatenate([sequence.behaviour for sequence in chosen]).astype(np.float32),
        advantages=np.repeat([sequence.advantage for sequence in chosen], lengths).astype(np.float32),
        real_tokens=tokens if row is None else input_ids.size,
        sequence_tokens=tokens,
    )


def filled_up(batches: list[MicroBatch], count: int, *, packed: bool = False) -> list[MicroBatch]:
    """`batches`, and empty ones after them up to `count`: ranks must make as many passes as the one with the most."""
    return [*batches, *(_empty(packed) for _ in range(len(batches), count))]


def _empty(packed: bool) -> MicroBatch:
    """Two tokens of input, so that every layer runs forward and backward, and T = 0: its gradient is zero."""
    none = np.empty(0, dtype=np.int64)
    input_ids = np.zeros((1, 2), dtype=np.int64)
    row = Row(np.array([2]), np.array([0])) if packed else None
    return MicroBatch(none, input_ids, row, none, none, none, EMPTY, EMPTY, real_tokens=0, sequence_tokens=0)


def by_sequence(
    batches: SequenceOf[MicroBatch], flat: SequenceOf[npt.NDArray[np.float32]]
) -> list[npt.NDArray[np.float32]]:
    """One array per sequence, in the order they were batched in, from one flat [T] array per micro-batch."""
    parts = {
        int(index): part
        for batch, values in zip(batches, flat, strict=True)
        for index, part in zip(batch.indices, np.split(values, np.cumsum(batch.lengths))[:-1], strict=True)
    }
    return [parts[index] for index in range(len(parts))]
