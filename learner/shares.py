"""A batch cut into mini-steps, and each of them shared out over the ranks by tokens. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Share:
    """What one rank trains on. Example: places [0, 3, 4], cuts [0, 2, 3] are two mini-steps, of 0 and 3, and of 4."""

    places: list[int]
    """Of its sequences in the batch, mini-step after mini-step."""
    cuts: list[int]
    """Where mini-steps begin and end in `places`; one may be empty."""


def cut(count: int, mini_steps: int) -> list[int]:
    """Where `mini_steps` runs of `count` sequences begin and end; fewer, where there are fewer sequences."""
    bounds: list[int] = np.linspace(0, count, min(mini_steps, count) + 1).astype(int).tolist()
    return bounds


def share_out(tokens: Sequence[int], mini_steps: int, ranks: int) -> list[Share]:
    """One share for each rank, of sequences of so many tokens; the same input gives the same shares.

    In each mini-step the longest goes first, always to the rank that has least so far (LPT): the most that a rank gets
    is at most 4/3 of what the best division would leave it.
    """
    shares = [Share([], [0]) for _ in range(ranks)]
    for start, end in pairwise(cut(len(tokens), mini_steps)):
        loads = [(0, rank) for rank in range(ranks)]
        given: list[list[int]] = [[] for _ in range(ranks)]
        for place in sorted(range(start, end), key=lambda place: -tokens[place]):
            load, rank = heapq.heappop(loads)
            given[rank].append(place)
            heapq.heappush(loads, (load + tokens[place], rank))
        for share, places in zip(shares, given, strict=True):
            share.places.extend(sorted(places))
            share.cuts.append(len(share.places))
    return shares
