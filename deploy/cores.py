"""Cores of their own for the actors of a machine without a GPU.

An actor is the longest stage and computes all the time; scorers, their children and the learner come and go. On
shared cores the scheduler moves them all about, and every move costs the actor its turn and its caches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Cores:
    """`divide([0, 1, 2, 3], actors=2, actor_threads=1, learner_threads=1)` is `Cores([{0}, {1}], {2, 3})`."""

    actors: list[set[int]]
    """Of each actor."""
    others: set[int]
    """Of all other processes together."""


def divide(cores: Sequence[int], *, actors: int, actor_threads: int, learner_threads: int) -> Cores | None:
    """A core for every thread of an actor, the rest for the others; None when the learner would get too few."""
    own = actors * actor_threads
    if len(cores) - own < learner_threads:
        return None
    starts = range(0, own, actor_threads)
    return Cores([set(cores[start : start + actor_threads]) for start in starts], set(cores[own:]))


def current() -> set[int]:
    """The cores that this thread may run on."""
    return os.sched_getaffinity(0)


@contextmanager
def keep_to(cores: set[int]) -> Iterator[None]:
    """This thread, and every process that it starts meanwhile, runs on these cores alone."""
    before = current()
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
