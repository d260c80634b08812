"""What a plot shows, before it is drawn: curves, no finer than an eye needs them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.report.steps import Floats

WINDOW = 15
"""Steps that the thick line of a curve is the mean of."""
ENDS = 20
"""Steps at either end of a run that a table has the mean of."""
MOST_POINTS, LEAST_POINTS = 300, 80
POINTS_OF_A_PLOT = 1600
"""Of all curves of a plot: with more of them each is coarser."""


@dataclass(frozen=True)
class Curve:
    """One line of a plot. Every array is [points]."""

    label: str
    color: int
    """Place in the palette."""
    x: Floats
    y: Floats
    smooth: Floats | None = None
    """Its trailing mean, where it is long enough for one."""
    low: Floats | None = None
    high: Floats | None = None
    """Its interval."""
    ends: tuple[float, float] = (0.0, 0.0)
    """Mean of its first and of its last ENDS steps."""
    reach: tuple[float, float] = (0.0, 0.0)
    """Its lowest and its highest value."""

    @property
    def constant(self) -> bool:
        return self.reach[0] == self.reach[1]


@dataclass(frozen=True)
class Plot:
    title: str
    curves: Sequence[Curve]
    stacked: bool = False
    level: float | None = None
    """Of a line across, for the eye."""
    xlabel: str = "step"


def curve(label: str, color: int, x: Floats, y: Floats, of: int = 1, smooth: bool = True) -> Curve | None:
    """Of the points that have a value, as coarse as a plot of `of` curves has it; None without any."""
    has = np.isfinite(y)
    if not has.any():
        return None
    x, y = x[has], y[has]
    most = max(LEAST_POINTS, min(MOST_POINTS, POINTS_OF_A_PLOT // max(of, 1)))
    mean = thinned(trailing_mean(y), most) if smooth and len(y) > WINDOW else None
    ends, reach = (float(y[:ENDS].mean()), float(y[-ENDS:].mean())), (float(y.min()), float(y.max()))
    return Curve(label, color, thinned(x, most), thinned(y, most), mean, ends=ends, reach=reach)


def trailing_mean(values: Floats, window: int = WINDOW) -> Floats:
    """[n]: the mean of each value and those before it, `window` in all."""
    padded = np.concatenate([np.zeros(window - 1), values])
    sums = np.lib.stride_tricks.sliding_window_view(padded, window).sum(axis=1)
    return np.asarray(sums / np.minimum(np.arange(1, len(values) + 1), window))


def thinned(values: Floats, most: int) -> Floats:
    """[most] at the most: the means of neighbours, as many of each."""
    if len(values) <= most:
        return values
    edges = np.linspace(0, len(values), most + 1).astype(int)
    return np.asarray(np.add.reduceat(values, edges[:-1]) / np.diff(edges))
