"""Packed sequences: several lie end to end in one row, and attention alone has to know which token is whose.

Every other layer of a transformer works on single tokens, so it runs on the packed row, where nothing is padding and a
prompt of several sequences is there once. Attention takes queries, keys and values apart by sequence, each with its
whole prompt, like lengths together, calls torch's own kernel on them, causal and without a mask, and puts the results
back into the row. (transformers' own way is a mask over all pairs of the row's tokens, for which a CPU needs 20 times
as long.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from learner.padding import like_widths
from learner.rows import Row, within

NAME = "packed"
"""The attention's name in transformers, which makes no masks for a name that is not its own."""

_INERT = ("position_ids", "cache_position")  # what layers hand to their attention although it does not need it


@dataclass(frozen=True)
class Segments:
    """Where the sequences of a packed row of L tokens lie, and their cells, C in all, when they are taken apart.

    The cells are those of the `shapes`, one after the other. A token of a shared prompt has a cell in each of its
    sequences, which compute the same for it; one of them owns it, and its result goes back into the row.
    """

    position_ids: Tensor
    """int64 [1, L], from 0 in each sequence."""
    shapes: tuple[tuple[int, int], ...]
    """(S, W) of sequences of like length: how many there are, and tokens in the longest."""
    spread: Tensor
    """int64 [C], the token in each cell; the row's first one where there is none."""
    copies: Tensor
    """int64 [all that are not empty], the cells of each token, token after token."""
    starts: Tensor
    """int64 [L], where those of a token begin in `copies`."""
    owners: Tensor
    """int64 [L], the first of them."""
    as_it_is: bool
    """Whether cells and tokens are the same."""

    @classmethod
    def of(cls, row: Row, device: torch.device) -> Segments:
        order = np.argsort(-row.widths, kind="stable")
        widths = row.widths[order]
        runs = like_widths(widths)
        shapes = [(len(widths[run]), int(widths[run][0])) for run in runs]
        padded = np.repeat([width for _, width in shapes], [count for count, _ in shapes])
        cells = np.repeat(np.cumsum(padded) - padded, widths) + within(widths)
        before = np.cumsum(row.widths) - row.widths
        tokens = row.places[np.repeat(before[order], widths) + within(widths)]
        spread = np.zeros(padded.sum(), dtype=np.int64)
        spread[cells] = tokens
        copies = cells[np.argsort(tokens, kind="stable")]
        counts = np.bincount(tokens)
        starts = np.cumsum(counts) - counts
        arrays = [torch.from_numpy(array).to(device) for array in (spread, copies, starts, copies[starts])]
        as_it_is = len(shapes) == 1 and np.array_equal(spread, np.arange(len(counts)))
        return cls(torch.from_numpy(row.position_ids[None]).to(device), tuple(shapes), *arrays, as_it_is)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Segments | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention of the sequences of a packed row, or of each row where `segments` is None.

    As transformers calls it: `query`, `key`, `value` [1, heads, L, D] to [1, L, heads, D], key and value with as
    many heads or a divisor. ValueError for what it does not compute (a window, a soft cap, attention sinks).
    """
    if segments is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    unknown = [name for name, given in others.items() if name not in _INERT and not (given is None or given is False)]
    if unknown or attention_mask is not None:
        raise ValueError(f"its attention is given {', '.join(unknown) or 'a mask'}")
    parts = zip(*(_apart(states.squeeze(0).transpose(0, 1), segments) for states in (query, key, value)), strict=True)
    outputs = []
    for part in parts:
        rows = [states.transpose(1, 2) for states in part]
        outputs.append(sdpa_attention_forward(module, *rows, None, dropout=dropout, scaling=scaling)[0].flatten(0, 1))
    return _together(outputs, segments)[None], None


AttentionInterface.register(NAME, attention)


def _apart(tokens: Tensor, segments: Segments) -> tuple[Tensor, ...]:
    """[L, ...] to [S, W, ...] for each of the shapes; what stands in an empty cell is read by no token."""
    cells: Tensor = tokens if segments.as_it_is else _Spread.apply(tokens, segments)  # type: ignore[no-untyped-call]
    parts = cells.split([count * width for count, width in segments.shapes]) if len(segments.shapes) > 1 else [cells]
    return tuple(part.unflatten(0, shape) for part, shape in zip(parts, segments.shapes, strict=True))


def _together(parts: list[Tensor], segments: Segments) -> Tensor:
    """[S * W, ...] of each of the shapes to [L, ...]."""
    cells = torch.cat(parts) if len(parts) > 1 else parts[0]
    result: Tensor = cells if segments.as_it_is else _Gather.apply(cells, segments)  # type: ignore[no-untyped-call]
    return result


class _Spread(torch.autograd.Function):
    """[L, ...] to [C, ...]. A token's gradient is the sum over its cells, always in the same order.

    Empty cells are left out: they get none, since what attention computes there goes nowhere.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        return tokens.index_select(0, segments.spread)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        sums = embedding_bag(ctx.segments.copies, gradient.flatten(1), ctx.segments.starts, mode="sum")
        return sums.unflatten(1, gradient.shape[1:]), None


class _Gather(torch.autograd.Function):
    """[C, ...] to [L, ...]: a token's result is its owner's. The gradient of all other cells is zero."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        return cells.index_select(0, segments.owners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        cells = gradient.new_zeros(len(ctx.segments.spread), *gradient.shape[1:])
        return cells.index_copy_(0, ctx.segments.owners, gradient), None
