"""A batch cut into mini-steps, and each of them shared out over the ranks by tokens. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from learner.batch import Sequence
from learner.runs import by_prompt, end_to_end, evened, shared_with_last


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


def share_out(sequences: SequenceOf[Sequence], mini_steps: int, ranks: int, *, packed: bool) -> list[Share]:
    """One share for each rank; the same input gives the same shares.

    Of two divisions of each mini-step the one whose fullest rank computes fewer tokens, where ranks that pack compute a
    prompt once. One keeps sequences of a prompt together but for those between two ranks. The other does not look at
    prompts; the most that a rank gets is at most 4/3 of what the best such division would leave it.
    """
    shares = [Share([], [0]) for _ in range(ranks)]
    for start, end in pairwise(cut(len(sequences), mini_steps)):
        part = sequences[start:end]
        widths = [sequence.width for sequence in part]
        order = sorted(range(len(part)), key=lambda place: -widths[place])
        given = _longest_first(order, widths, ranks)
        if packed:
            given = min(_by_prompt(order, part, ranks), given, key=lambda division: _fullest(division, part))
        for share, places in zip(shares, given, strict=True):
            share.places.extend(start + place for place in sorted(places))
            share.cuts.append(len(share.places))
    return shares


def _longest_first(order: list[int], widths: list[int], ranks: int) -> list[list[int]]:
    """Always to the rank that has least so far (LPT)."""
    loads = [(0, rank) for rank in range(ranks)]
    given: list[list[int]] = [[] for _ in range(ranks)]
    for place in order:
        load, rank = heapq.heappop(loads)
        given[rank].append(place)
        heapq.heappush(loads, (load + widths[place], rank))
    return given


def _by_prompt(order: list[int], part: SequenceOf[Sequence], ranks: int) -> list[list[int]]:
    """Prompts dealt to the ranks in turn, those with long completions first, then cut so that none has much more."""
    prompts = [sequence.prompt for sequence in part]
    groups = by_prompt(order, prompts)
    dealt = [place for rank in range(ranks) for group in groups[rank::ranks] for place in group]
    widths = [part[place].width for place in dealt]
    shared = shared_with_last(dealt, prompts, [len(sequence.prompt_ids) for sequence in part])
    runs = evened(lambda limit: end_to_end(widths, shared, limit), sum(widths), ranks)
    return [dealt[run] for run in runs] + [[] for _ in range(ranks - len(runs))]


def _fullest(division: list[list[int]], part: SequenceOf[Sequence]) -> int:
    """Tokens of the rank that computes most of them."""
    loads = []
    for places in division:
        prompts = {part[place].prompt: len(part[place].prompt_ids) for place in places}
        loads.append(sum(prompts.values()) + sum(part[place].width - len(part[place].prompt_ids) for place in places))
    return max(loads)
