"""How far the reward model may be trusted where it ranks alone: its AUROC against the verifier, and a gate on it. Pure.

In a group that is all wrong or all right only the reward model tells completions apart. Whether it can is seen in the
mixed groups, where the verifier does too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.auroc import auroc_within
from learner.advantage import Group

MOMENTUM = 0.9
"""Of the running mean over batches. The standard error of an AUROC at chance is about 0.25 from one mixed group of 8,
0.06 from a batch of 20 of them and 0.013 from this mean, which holds about 20 such batches. And a policy leaves what
its reward model has learned within dozens of steps, not within thousands."""


def in_group_auroc(groups: Sequence[Group]) -> float | None:
    """Mean over the mixed groups of how often a correct completion scores above a wrong one, ties half.

    Completions without a score take no part: of them the reward model said nothing. None where no group is mixed.
    """
    labels, scores, places = [], [], []
    for place, group in enumerate(groups):
        if group.rm_scores is not None:
            judged = np.isfinite(group.rm_scores)
            labels.append(group.correct[judged])
            scores.append(group.rm_scores[judged])
            places.append(np.full(judged.sum(), place))
    if not labels:
        return None
    found = auroc_within(np.concatenate(labels), np.concatenate(scores), np.concatenate(places))
    return None if np.isnan(found) else found


class Gate:
    """Silences the uniform groups of a batch while the running mean of the AUROC is below `minimum`; 0 never does.

    Open for as long as nothing is known, which is the paper's method. A batch counts before it is judged: its own mixed
    groups are the newest that is known.
    """

    def __init__(self, minimum: float, mean: float | None = None) -> None:
        self._minimum = minimum
        self.mean = mean
        """Exponential over batches with a mixed group, started by the first; None before."""

    def silenced(self, groups: Sequence[Group]) -> list[bool]:
        """Takes one batch in; for each group whether it gets no advantage."""
        found = in_group_auroc(groups)
        if found is not None:
            self.mean = found if self.mean is None else MOMENTUM * self.mean + (1 - MOMENTUM) * found
        closed = self.mean is not None and self.mean < self._minimum
        return [closed and group.uniform for group in groups]
