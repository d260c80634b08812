"""The numbers of a log's lines by step, in columns: eight bytes for each number, whatever a line weighs."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.untrusted import figure

Floats = NDArray[np.float64]

MOST_COLUMNS = 256
LONGEST_NAME = 80


class Steps:
    """Rows in the order of their steps. A learner that fell back to a checkpoint writes the steps behind it anew: what
    it had written of them is forgotten, as it is in the policy."""

    def __init__(self) -> None:
        self._steps: array[float] = array("d")
        self._columns: dict[str, array[float]] = {}
        self.again = 0
        """Rows that were forgotten."""
        self.left_out = 0
        """Numbers beyond MOST_COLUMNS."""

    def add(self, line: Mapping[str, Any], step: object = None) -> None:
        """The numbers of a line, those in objects in it as `object.name`; `step` if it is not the line's own.

        A line without a step is passed over.
        """
        found = figure(line.get("step") if step is None else step)
        if found is None:
            return
        place = bisect_left(self._steps, found)
        self.again += len(self._steps) - place
        for values in (self._steps, *self._columns.values()):
            del values[place:]
        for name, value in _flat(line):
            if name not in self._columns:
                if len(self._columns) >= MOST_COLUMNS:
                    self.left_out += 1
                    continue
                self._columns[name] = array("d", [math.nan] * place)
            if len(self._columns[name]) == place:  # a name may come twice
                self._columns[name].append(value)
        self._steps.append(found)
        for values in self._columns.values():
            if len(values) <= place:
                values.append(math.nan)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def names(self) -> list[str]:
        return list(self._columns)

    @property
    def steps(self) -> Floats:
        """[steps], rising."""
        return np.array(self._steps)

    def of(self, name: str) -> Floats:
        """[steps], nan where a step has none."""
        return np.array(self._columns.get(name) or [math.nan] * len(self), dtype=np.float64)

    def last(self, name: str) -> float | None:
        """Of the newest step."""
        column = self._columns.get(name)
        return None if not column or math.isnan(column[-1]) else column[-1]


def _flat(line: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        name = f"{within}{key}"
        if len(name) > LONGEST_NAME or name == "step":
            continue
        if isinstance(value, Mapping) and within.count(".") < 2:
            yield from _flat(value, f"{name}.")
        elif (found := figure(value)) is not None:
            yield name, found
