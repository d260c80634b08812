"""Seconds to what they are made of."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np
import torch

from tests.bench.processes import cpu_seconds_below

Row = tuple[Sequence[float], float]
"""(what counts, seconds)"""


def nonnegative_fit(rows: Sequence[Row]) -> list[float]:
    """Least squares of relative errors; a coefficient below 0 becomes 0, and the others are fitted again.

    Returns seconds for each of what counts.
    """
    x = np.array([[value / seconds for value in counts] for counts, seconds in rows])
    kept = list(range(x.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(x[:, kept], np.ones(len(x)), rcond=None)
        if not (below := [place for place, value in zip(kept, found, strict=True) if value < 0]):
            break
        kept = [place for place in kept if place not in below]
    result = [0.0] * x.shape[1]
    for place, value in zip(kept, found, strict=True):
        result[place] = float(value)
    return result


class Stopwatch:
    """Seconds of work between `start` and `stop`: by the clock with a GPU, else CPU-seconds over `threads`."""

    def __init__(self, threads: int, children: bool = False) -> None:
        """`children`: theirs count, too; in ticks of 10 ms, so measure a second or more."""
        self._cuda = torch.cuda.is_available()
        self._threads = threads
        self._children = children
        self._begun = 0.0

    def start(self) -> None:
        below = self._below()
        self._begun = self._own() + below

    def stop(self) -> float:
        own = self._own()  # before the look at the children, which takes some itself
        return (own + self._below() - self._begun) / (1 if self._cuda else self._threads)

    def _own(self) -> float:
        if not self._cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def _below(self) -> float:
        return cpu_seconds_below(os.getpid()) if self._children and not self._cuda else 0.0
