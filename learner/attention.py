"""Packed sequences: several lie end to end in one row, and attention alone has to know where each begins.

Every other layer of a transformer works on single tokens, so it runs on the packed row, where nothing is padding.
Attention takes queries, keys and values apart by sequence, like lengths together, calls torch's own kernel on them,
causal and without a mask, and lays the results end to end again. (transformers' own way is a mask over all pairs of
the row's tokens, for which a CPU needs 20 times as long.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from learner.padding import like_widths

NAME = "packed"
"""The attention's name in transformers, which makes no masks for a name that is not its own."""

_INERT = ("position_ids", "cache_position")  # what layers hand to their attention although it does not need it


@dataclass(frozen=True)
class Group:
    """Neighbours of like length: S sequences, W tokens in the longest."""

    shape: tuple[int, int]
    """(S, W)."""
    tokens: slice
    """Of the packed row."""
    spread: Tensor
    """int64 [S * W]: the packed token at each place of [S, W]; the group's first one where there is none."""
    gathered: Tensor
    """int64, the place in [S * W] of each of the group's tokens."""
    holes: Tensor
    """int64, the places in [S * W] where no token is."""


@dataclass(frozen=True)
class Segments:
    """Where the sequences of a packed row lie."""

    position_ids: Tensor
    """int64 [1, L], from 0 in each."""
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, widths: npt.NDArray[np.int64], device: torch.device) -> Segments:
        """Of sequences with `widths` tokens each, as they lie from left to right."""
        starts = np.cumsum(widths) - widths
        position_ids = np.arange(widths.sum()) - np.repeat(starts, widths)
        groups = [_group(widths[run], int(starts[run][0]), device) for run in like_widths(widths)]
        return cls(torch.from_numpy(position_ids[None]).to(device), tuple(groups))


def _group(widths: npt.NDArray[np.int64], start: int, device: torch.device) -> Group:
    rows, width, tokens = len(widths), int(widths.max()), int(widths.sum())
    within = np.arange(tokens) - np.repeat(np.cumsum(widths) - widths, widths)
    gathered = np.repeat(np.arange(rows) * width, widths) + within
    spread = np.full(rows * width, -1, dtype=np.int64)
    spread[gathered] = np.arange(tokens)
    holes = np.flatnonzero(spread < 0)
    spread = start + np.maximum(spread, 0)
    places = [torch.from_numpy(places).to(device) for places in (spread, gathered, holes)]
    return Group((rows, width), slice(start, start + tokens), *places)


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
    groups = segments.groups
    parts = zip(*(_spread(states.squeeze(0).transpose(0, 1), groups) for states in (query, key, value)), strict=True)
    outputs = []
    for part in parts:
        rows = [states.transpose(1, 2) for states in part]
        outputs.append(sdpa_attention_forward(module, *rows, None, dropout=dropout, scaling=scaling)[0])
    return _gather(outputs, groups)[None], None


AttentionInterface.register(NAME, attention)


def _spread(tokens: Tensor, groups: tuple[Group, ...]) -> tuple[Tensor, ...]:
    """[L, ...] to [S, W, ...] for each group; what stands in the holes is read by no token."""
    if len(groups) == 1 and not len(groups[0].holes):
        return (tokens.unflatten(0, groups[0].shape),)
    result: tuple[Tensor, ...] = _Spread.apply(tokens, groups)  # type: ignore[no-untyped-call]
    return result


def _gather(rows: list[Tensor], groups: tuple[Group, ...]) -> Tensor:
    """[S, W, ...] of each group to [L, ...]."""
    if len(groups) == 1 and not len(groups[0].holes):
        return rows[0].flatten(0, 1)
    result: Tensor = _Gather.apply(groups, *rows)  # type: ignore[no-untyped-call]
    return result


class _Spread(torch.autograd.Function):
    """Its gradient leaves the holes out: they get none, since what attention computes there goes nowhere."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, groups: tuple[Group, ...]) -> tuple[Tensor, ...]:
        ctx.groups = groups
        return tuple(tokens.index_select(0, group.spread).unflatten(0, group.shape) for group in groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _end_to_end(gradients, ctx.groups), None


class _Gather(torch.autograd.Function):
    """Its gradient is zero in the holes."""

    @staticmethod
    def forward(ctx: Any, groups: tuple[Group, ...], *rows: Tensor) -> Tensor:
        ctx.groups = groups
        return _end_to_end(rows, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows = [gradient.index_select(0, group.spread).index_fill_(0, group.holes, 0) for group in ctx.groups]
        return None, *(part.unflatten(0, group.shape) for part, group in zip(rows, ctx.groups, strict=True))


def _end_to_end(rows: tuple[Tensor, ...], groups: tuple[Group, ...]) -> Tensor:
    result = rows[0].new_empty(groups[-1].tokens.stop, *rows[0].shape[2:])
    for part, group in zip(rows, groups, strict=True):
        torch.index_select(part.flatten(0, 1), 0, group.gathered, out=result[group.tokens])
    return result
