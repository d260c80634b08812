"""Values around their mean, and over their standard deviation. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_EPS = 1e-6  # verl adds the same to the standard deviation


def centered(values: Floats) -> Floats:
    """float64 [N] minus their mean; equal values give zeros."""
    # The mean of equal floats may differ from them in the last bit; divided by eps that would show.
    if (values == values[0]).all():
        return np.zeros_like(values)
    return np.asarray(values - values.mean(), dtype=np.float64)


def normalized(values: Floats) -> Floats:
    """float64 [N], (x - mean) / (std + 1e-6) with ddof 1; one value, or equal ones, give zeros."""
    largest = np.abs(values).max()
    # Squares beyond 1e154 overflow; so large, the values are far above eps on any scale.
    around = centered(values / largest if largest > 1e100 else values)
    std = np.sqrt(np.square(around).sum() / max(values.size - 1, 1))
    return np.asarray(around / (std + _EPS), dtype=np.float64)
