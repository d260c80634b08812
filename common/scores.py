"""Reward-model scores of one group, where some completions have none. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def recorded(rm_scores: Float64) -> Float64:
    """float64 [N] as they go on the wire: NaN for every one that is not finite."""
    return np.where(np.isfinite(rm_scores), rm_scores, np.nan)


def lowest_for_lost(rm_scores: Float64) -> Float64:
    """float64 [N], all finite: a completion without a score has the lowest of its group; 0 where none has one.

    Without one is what was too long for the model (NaN) or got no finite score: neither is a merit.
    """
    found = np.isfinite(rm_scores)
    return np.where(found, rm_scores, rm_scores[found].min() if found.any() else 0.0)
