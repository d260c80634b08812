"""What a checkpoint is worth, by which the best one is kept. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, order=True)
class Score:
    """Larger is better. What was evaluated counts above all that was only seen in training."""

    evaluated: bool
    accuracy: float


class Scores:
    """What became known since the last checkpoint."""

    def __init__(self) -> None:
        self._evaluated: float | None = None
        self._trained: list[float] = []

    def trained(self, accuracy: float) -> None:
        """A batch, of whose completions such a share was right by the verifier."""
        self._trained.append(accuracy)

    def evaluated(self, accuracy: float) -> None:
        """An evaluation beside training."""
        self._evaluated = accuracy

    @property
    def now(self) -> Score | None:
        """Of the newest evaluation, else the mean over the batches; None without either."""
        if self._evaluated is not None:
            return Score(True, self._evaluated)
        return Score(False, float(np.mean(self._trained))) if self._trained else None

    def saved(self) -> None:
        """A checkpoint has it."""
        self._evaluated = None
        self._trained.clear()
