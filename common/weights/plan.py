"""Which parts in the broker make up a version, which are to be written next, and which can go. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from common.schema import Part

WHOLE_EVERY = 50
"""Steps after which a version is written whole again, however small the changes: an actor that joins reads them all."""


def to_read(parts: Sequence[Part], target: int, have: int | None) -> list[Part] | None:
    """Parts that lead to step `target`, in order: from step `have`, or from a whole version, which is the first part
    then; of both what takes fewer bytes. None when neither can be had."""
    ways = [_path(parts, target, None)]
    if have is not None:
        ways.append(_path(parts, target, have))
    found = [way for way in ways if way is not None]
    return min(found, key=_bytes, default=None)


def whole_is_due(parts: Sequence[Part], read_now: Collection[int]) -> bool:
    """Whether the next version is to be written whole as well: there is none, or whoever joins had to read more than
    that beside it, or too many. While an older one than the newest is being read a third one would have no room."""
    whole = [part for part in parts if part.base is None]
    if not whole:
        return True
    since = [part for part in parts if part.base is not None and part.step > whole[-1].step]
    costly = _bytes(since) > whole[-1].bytes or len(since) >= WHOLE_EVERY
    return costly and not any(part.step in read_now for part in whole[:-1])


def to_keep(parts: Sequence[Part], read_now: Collection[int], keep: int) -> list[Part]:
    """What whoever joins needs, from the newest whole version on; what those need who are reading an older one; and the
    `keep` newest changes, for who is late."""
    whole = [part.step for part in parts if part.base is None]
    first = min([step for step in whole if step in read_now] + whole[-1:], default=0)
    changes = [part.step for part in parts if part.base is not None]
    recent = changes[max(0, len(changes) - keep) :]
    return [
        part
        for part in parts
        if (part.step >= first if part.base is None else part.step > first or part.step in recent)
    ]


def _path(parts: Sequence[Part], target: int, have: int | None) -> list[Part] | None:
    """Backwards from the target: every step has one way of changes at most."""
    before = {part.step: part for part in parts if part.base is not None}
    whole = {part.step: part for part in parts if part.base is None}
    path: list[Part] = []
    step = target
    while step != have:
        if have is None and step in whole:
            return [whole[step], *reversed(path)]
        if step not in before:
            return None
        path.append(before[step])
        base = before[step].base
        assert base is not None
        if base >= step:  # hostile: it would never end
            return None
        step = base
    return list(reversed(path))


def _bytes(parts: Sequence[Part]) -> int:
    return sum(part.bytes for part in parts)
