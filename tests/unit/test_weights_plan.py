"""Which parts an actor reads, when a whole version is due, and what stays."""

from __future__ import annotations

from common.schema import Part
from common.weights.plan import WHOLE_EVERY, to_keep, to_read, whole_is_due


def whole(step: int, size: int = 100) -> Part:
    return Part(step, None, 1, size)


def since(base: int, step: int, size: int = 5) -> Part:
    return Part(step, base, 1, size)


CHAIN = [whole(10), since(10, 11), since(11, 13), since(13, 14)]


def test_who_has_nothing_reads_a_whole_version_and_what_changed_since() -> None:
    assert to_read(CHAIN, 14, None) == CHAIN
    assert to_read(CHAIN, 10, None) == CHAIN[:1]


def test_who_has_a_version_reads_what_changed_since() -> None:
    assert to_read(CHAIN, 14, 11) == CHAIN[2:]
    assert to_read(CHAIN, 14, 14) == []


def test_who_has_a_version_between_reads_a_whole_one() -> None:
    assert to_read(CHAIN, 14, 12) == CHAIN


def test_the_newest_whole_version_is_taken_and_the_cheaper_way() -> None:
    parts = [*CHAIN, since(14, 15, size=300), whole(15), since(15, 16)]
    assert to_read(parts, 16, None) == [whole(15), since(15, 16)]
    assert to_read(parts, 16, 11) == [whole(15), since(15, 16)], "five bytes and 300 are more than a hundred"
    assert to_read(parts, 16, 15) == [since(15, 16)]


def test_what_is_not_there_cannot_be_read() -> None:
    assert to_read([], 3, None) is None
    assert to_read([since(2, 3)], 3, None) is None
    assert to_read([since(2, 3)], 3, 1) is None
    assert to_read([since(3, 3), since(5, 4)], 4, 1) is None, "hostile: it would never end"


def test_a_whole_version_is_due_at_first_and_when_changes_cost_more() -> None:
    assert whole_is_due([], ())
    assert not whole_is_due(CHAIN, ())
    assert whole_is_due([whole(0), since(0, 1, 60), since(1, 2, 60)], ())
    many = [whole(0), *(since(i, i + 1, 0) for i in range(WHOLE_EVERY))]
    assert whole_is_due(many, ()) and not whole_is_due(many[:-1], ())


def test_no_third_whole_version_while_an_older_one_is_read() -> None:
    parts = [whole(0), since(0, 1, 101), whole(1), since(1, 2, 101)]
    assert whole_is_due(parts, {1}) and whole_is_due(parts, ())
    assert not whole_is_due(parts, {0})


def test_what_is_older_than_the_newest_whole_version_goes() -> None:
    parts = [whole(0), since(0, 1), since(1, 2), whole(2), since(2, 3)]
    assert to_keep(parts, (), keep=0) == [whole(2), since(2, 3)]
    assert to_keep(parts, (), keep=2) == [since(1, 2), whole(2), since(2, 3)], "for actors that are late"
    assert to_keep(parts, {0}, keep=0) == parts, "somebody is still reading it"
    assert to_keep(parts, {7}, keep=0) == [whole(2), since(2, 3)]
