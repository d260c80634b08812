"""What a reward model is to everybody else: samples in, one score each out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from common.errors import ModelError

Scores = npt.NDArray[np.float64]
"""float64 [N]: raw scores; nan where a sample is too long for the model, inf where its score was not finite."""


class Sample(NamedTuple):
    """`Sample("12 + 30 = ?", "It is \\\\boxed{42}", "42")`: a completion, what it answers, and the gold answer."""

    question: str
    completion: str
    gold: str = ""
    """Read by the likelihood of the gold answer alone."""


class RewardModel(Protocol):
    """One small interface, whether the model is in this process or behind a server."""

    @property
    def name(self) -> str:
        """Model and revision, as they go on record with every group."""
        ...

    def score(self, samples: Sequence[Sample]) -> Scores:
        """One score for each sample. Raises ModelError when the model cannot be asked or gives no finite score."""
        ...

    def close(self) -> None:
        """Lets go of connections; the model scores no more."""
        ...


def score_once(
    name: str, samples: Sequence[Sample], lengths: Sequence[int], max_length: int, score: Callable[[list[int]], Scores]
) -> Scores:
    """The scores of `samples`, where `score` gives those at some places, which are the ones that fit.

    Equal samples are scored once: a rounding between two batches would otherwise be stretched to a whole band by
    HERO's min-max. lengths: tokens of each. Raises ModelError when not one of the scores is finite: that is the model's
    fault, where a single one is the completion's.
    """
    first: dict[Sample, int] = {}
    for place, sample in enumerate(samples):
        first.setdefault(sample, place)
    fits = [place for place in first.values() if 0 < lengths[place] <= max_length]
    found = np.full(len(samples), np.nan)
    if fits:
        given = score(fits)
        if not np.isfinite(given).any():
            raise ModelError(
                f"{name} gives no finite score, {given[0]} to {samples[fits[0]].completion[:80]!r} for one; check the "
                "model's weights, or use dtype float32"
            )
        found[fits] = np.where(np.isfinite(given), given, np.inf)
    return found[[first[sample] for sample in samples]]
