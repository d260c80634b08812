"""Sequences in an order, and that order cut into runs by the tokens that a run takes: of micro-batches, of ranks. Pure.

Neighbours may share a prompt, which a run then has once; where a cut comes between them, both runs have it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Cut = Callable[[int], list[slice]]
"""Runs that each take at most so many tokens, or are one sequence that takes more."""


def by_prompt(order: Sequence[int], prompts: Sequence[bytes]) -> list[list[int]]:
    """The places in `order`, those of equal prompts together, each prompt where its first one was."""
    found: dict[bytes, list[int]] = {}
    for place in order:
        found.setdefault(prompts[place], []).append(place)
    return list(found.values())


def shared_with_last(order: Sequence[int], prompts: Sequence[bytes], tokens: Sequence[int]) -> list[int]:
    """What each has in common with the one before it in `order`: of its prompt's `tokens` all or none."""
    pairs = zip(order, [None, *order], strict=False)
    return [tokens[place] if last is not None and prompts[place] == prompts[last] else 0 for place, last in pairs]


def end_to_end(widths: Sequence[int], shared: Sequence[int], limit: int) -> list[slice]:
    """Runs whose sequences lie in one row, a shared prompt once."""
    runs, start, tokens = [], 0, 0
    for end, (width, common) in enumerate(zip(widths, shared, strict=True)):
        tokens += width - common if end > start else width
        if tokens > limit and end > start:
            runs.append(slice(start, end))
            start, tokens = end, width
    return [*runs, slice(start, len(widths))]


def in_rows(widths: Sequence[int], limit: int) -> list[slice]:
    """Runs whose sequences have a row each; `widths` fall, so the first row is the widest."""
    runs, start = [], 0
    for end in range(1, len(widths)):
        if (end - start + 1) * widths[start] > limit:
            runs.append(slice(start, end))
            start = end
    return [*runs, slice(start, len(widths))]


def evened(cut: Cut, limit: int, count: int | None = None) -> list[slice]:
    """As few runs as `limit` allows, or at most `count`; the largest of them as small as that number allows."""
    runs = cut(limit)
    count = count or len(runs)
    too_small, enough = 0, limit
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        tried = cut(middle)
        if len(tried) > count:
            too_small = middle
        else:
            runs, enough = tried, middle
    return runs
