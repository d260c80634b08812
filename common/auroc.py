"""Area under the ROC curve: how often a correct completion scores above a wrong one. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt


def auroc(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """P(score of a correct one > score of a wrong one), ties count half; nan when one label is missing.

    labels: bool [N]. scores: float [N]. The Mann-Whitney statistic by mean ranks, O(N log N).
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return math.nan
    _, group, count = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean_rank = last - (count - 1) / 2  # ranks from 1; equal scores share their mean
    rank_sum = float(mean_rank[group][labels].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def auroc_within(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], prompts: npt.NDArray[Any]) -> float:
    """Mean `auroc` over the prompts that have both labels; nan when none has. prompts: any [N]."""
    each = [auroc(labels[prompts == prompt], scores[prompts == prompt]) for prompt in np.unique(prompts)]
    mixed = [value for value in each if not math.isnan(value)]
    return sum(mixed) / len(mixed) if mixed else math.nan
