"""Sequences to micro-batches: like lengths together, right-padded, under a budget of padded tokens.

There is no attention mask: padding stands to the right, so under a causal mask no real token ever sees it,
and the model may take its faster mask-free attention. Only the positions that predict completion tokens
leave the micro-batch; whatever the model computes on padding is never read.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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


@dataclass(frozen=True)
class MicroBatch:
    """B sequences, L wide, with T completion tokens in all; flat arrays hold sequence after sequence."""

    indices: npt.NDArray[np.int64]
    """[B], places of the sequences in the list that was batched."""
    input_ids: npt.NDArray[np.int64]
    """[B, L], right-padded."""
    lengths: npt.NDArray[np.int64]
    """[B], completion tokens of each sequence; they sum to T."""
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


def micro_batches(sequences: SequenceOf[Sequence], token_budget: int, pad_id: int = 0) -> list[MicroBatch]:
    """Batches with B * L <= `token_budget`, longest sequences first; same input, same batches.

    Longest first, so a batch that does not fit into memory fails at once and not at the end of a step.
    A sequence longer than the budget gets a micro-batch of its own. Raises ValueError without sequences.
    """
    if not sequences:
        raise ValueError("no sequences to batch; wait for a scored group")
    if token_budget < 1:
        raise ValueError(f"token_budget = {token_budget}; it counts tokens, 8192 is usual")
    # sorted() is stable, so equal lengths keep their order and the result does not depend on a hash.
    order = sorted(range(len(sequences)), key=lambda index: -sequences[index].width)
    batches: list[MicroBatch] = []
    start = 0
    while start < len(order):
        width = sequences[order[start]].width
        rows = max(1, token_budget // width)
        batches.append(_pad(sequences, order[start : start + rows], width, pad_id))
        start += rows
    return batches


def _pad(sequences: SequenceOf[Sequence], indices: list[int], width: int, pad_id: int) -> MicroBatch:
    chosen = [sequences[index] for index in indices]
    input_ids = np.full((len(chosen), width), pad_id, dtype=np.int64)
    positions = []
    for row, sequence in enumerate(chosen):
        first = len(sequence.prompt_ids)
        input_ids[row, :first] = sequence.prompt_ids
        input_ids[row, first : sequence.width] = sequence.completion_ids[:-1]
        positions.append(np.arange(first - 1, sequence.width) + row * width)
    lengths = np.array([len(sequence.completion_ids) for sequence in chosen], dtype=np.int64)
    return MicroBatch(
        indices=np.array(indices, dtype=np.int64),
        input_ids=input_ids,
        lengths=lengths,
        positions=np.concatenate(positions),
        targets=np.concatenate([sequence.completion_ids for sequence in chosen]).astype(np.int64),
        behaviour=np.concatenate([sequence.behaviour for sequence in chosen]).astype(np.float32),
        advantages=np.repeat([sequence.advantage for sequence in chosen], lengths).astype(np.float32),
        real_tokens=sum(sequence.width for sequence in chosen),
    )


def padding_share(batches: Iterable[MicroBatch]) -> float:
    """Share of the computed tokens that are padding, in [0, 1)."""
    batches = list(batches)
    computed = sum(batch.input_ids.size for batch in batches)
    return 1.0 - sum(batch.real_tokens for batch in batches) / computed


def by_sequence(
    batches: SequenceOf[MicroBatch], flat: SequenceOf[npt.NDArray[np.float32]]
) -> list[npt.NDArray[np.float32]]:
    """One array per sequence, in the order they were batched in, from one flat [T] array per micro-batch."""
    parts = {
        int(index): part
        for batch, values in zip(batches, flat, strict=True)
        for index, part in zip(batch.indices, np.split(values, np.cumsum(batch.lengths)[:-1]), strict=True)
    }
    return [parts[index] for index in range(len(parts))]
