"""Sequences to micro-batches: like lengths together, under a budget of tokens, packed into one row or padded.

Packed, sequences lie end to end and none is padding; the attention keeps them apart (`learner.attention`). Padded,
each has a row. There is no attention mask then: padding stands to the right, so under a causal mask no real token
ever sees it. Either way only the positions that predict completion tokens leave the micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_NOT_WORTH_PACKING = 0.02  # of padding: taking attention apart costs a small model 3 %, a large one less than 1 %


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


EMPTY = np.zeros(0, np.float32)


@dataclass(frozen=True)
class MicroBatch:
    """S sequences with T completion tokens in all; flat arrays hold sequence after sequence.

    Padded, B = S rows as wide as the longest; packed, B = 1 row of all their tokens.
    """

    indices: npt.NDArray[np.int64]
    """[S], places of the sequences in the list that was batched."""
    input_ids: npt.NDArray[np.int64]
    """[B, L]"""
    segments: npt.NDArray[np.int64] | None
    """[S], tokens of each sequence in the packed row; None when padded."""
    lengths: npt.NDArray[np.int64]
    """[S], completion tokens of each sequence; they sum to T."""
    positions: npt.NDArray[np.int64]
    """[T], places in the flattened [B * L] input whose output predicts the targets."""
    targets: npt.NDArray[np.int64]
    """[T], completion tokens."""
    behaviour: npt.NDArray[np.float32]
    """[T]"""
    advantages: npt.NDArray[np.float32]
    """[T]"""
    real_tokens: int
    """Tokens of `input_ids` that are not padding."""


def micro_batches(sequences: SequenceOf[Sequence], token_budget: int, *, packed: bool = False) -> list[MicroBatch]:
    """Batches with B * L <= `token_budget`, as few as possible, longest sequences first; same input, same batches.

    Longest first, so a batch that does not fit into memory fails at once and not at the end of a step. A sequence
    longer than the budget gets a micro-batch of its own. They are about equal in size, so that none is a leftover.
    With `packed`, those whose rows would hardly be padded are not packed. Raises ValueError without sequences.
    """
    if not sequences:
        raise ValueError("no sequences to batch; wait for a scored group")
    if token_budget < 1:
        raise ValueError(f"token_budget = {token_budget}; it counts tokens, 8192 is usual")
    # sorted() is stable, so equal lengths keep their order and the result does not depend on a hash.
    order = sorted(range(len(sequences)), key=lambda index: -sequences[index].width)
    widths = [sequences[index].width for index in order]
    result = []
    for run in _balanced_runs(widths, token_budget, packed):
        lay_out = _pack if packed and _is_worth_packing(widths[run], token_budget) else _pad
        result.append(lay_out(sequences, order[run]))
    return result


def _is_worth_packing(widths: list[int], budget: int) -> bool:
    rows = len(widths) * widths[0]
    return rows > budget or sum(widths) < (1 - _NOT_WORTH_PACKING) * rows


def _balanced_runs(widths: list[int], budget: int, packed: bool) -> list[slice]:
    """Runs of `widths`, which fall: as few as fit `budget`, the largest of them as small as that number allows."""
    runs = _runs(widths, budget, packed)
    too_small, enough = 0, budget
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        tried = _runs(widths, middle, packed)
        if len(tried) > len(runs):
            too_small = middle
        else:
            runs, enough = tried, middle
    return runs


def _runs(widths: list[int], budget: int, packed: bool) -> list[slice]:
    runs, start, tokens = [], 0, 0
    for end, width in enumerate(widths):
        tokens = tokens + width if packed else (end - start + 1) * widths[start]
        if tokens > budget and end > start:
            runs.append(slice(start, end))
            start, tokens = end, width
    return [*runs, slice(start, len(widths))]


def _pad(sequences: SequenceOf[Sequence], indices: list[int]) -> MicroBatch:
    width = sequences[indices[0]].width
    input_ids = np.zeros((len(indices), width), dtype=np.int64)
    for row, index in zip(input_ids, indices, strict=True):
        row[: sequences[index].width] = _fed(sequences[index])
    return _micro_batch(sequences, indices, input_ids, np.arange(len(indices)) * width, None)


def _pack(sequences: SequenceOf[Sequence], indices: list[int]) -> MicroBatch:
    input_ids = np.concatenate([_fed(sequences[index]) for index in indices])[None]
    segments = np.array([sequences[index].width for index in indices], dtype=np.int64)
    return _micro_batch(sequences, indices, input_ids, np.cumsum(segments) - segments, segments)


def _fed(sequence: Sequence) -> npt.NDArray[np.int64]:
    return np.concatenate([sequence.prompt_ids, sequence.completion_ids[:-1]]).astype(np.int64)


def _micro_batch(
    sequences: SequenceOf[Sequence],
    indices: list[int],
    input_ids: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    segments: npt.NDArray[np.int64] | None,
) -> MicroBatch:
    """`starts` [S]: where each sequence begins in the flattened `input_ids`."""
    chosen = [sequences[index] for index in indices]
    lengths = np.array([len(sequence.completion_ids) for sequence in chosen], dtype=np.int64)
    positions = [
        np.arange(len(sequence.prompt_ids) - 1, sequence.width) + start
        for sequence, start in zip(chosen, starts, strict=True)
    ]
    return MicroBatch(
        indices=np.array(indices, dtype=np.int64),
        input_ids=input_ids,
        segments=segments,
        lengths=lengths,
        positions=np.concatenate(positions),
        targets=np.concatenate([sequence.completion_ids for sequence in chosen]).astype(np.int64),
        behaviour=np.concatenate([sequence.behaviour for sequence in chosen]).astype(np.float32),
        advantages=np.repeat([sequence.advantage for sequence in chosen], lengths).astype(np.float32),
        real_tokens=sum(sequence.width for sequence in chosen),
    )


def filled_up(batches: list[MicroBatch], count: int, *, packed: bool = False) -> list[MicroBatch]:
    """`batches`, and empty ones after them up to `count`: ranks must make as many passes as the one with the most."""
    return [*batches, *(_empty(packed) for _ in range(len(batches), count))]


def _empty(packed: bool) -> MicroBatch:
    """Two tokens of input, so that every layer runs forward and backward, and T = 0: its gradient is zero."""
    none = np.empty(0, dtype=np.int64)
    input_ids = np.zeros((1, 2), dtype=np.int64)
    segments = np.array([2], dtype=np.int64) if packed else None
    return MicroBatch(none, input_ids, segments, none, none, none, EMPTY, EMPTY, real_tokens=0)


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
