"""A row of numbers as a line of text. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*#@"
"""For a terminal whose encoding has no bars."""
GAP = " "


def sparkline(values: Sequence[float | None], width: int, bars: str = BARS) -> str:
    """At most `width` characters; each is the mean of as many values as fit, a gap where there are none.

    From the smallest value to the largest; all the same are in the middle.
    """
    if not values or width < 1:
        return ""
    per = -(-len(values) // width)
    means = [_mean(values[start : start + per]) for start in range(0, len(values), per)]
    known = [mean for mean in means if mean is not None]
    if not known:
        return GAP * len(means)
    low, high = min(known), max(known)
    return "".join(GAP if mean is None else _bar(mean, low, high, bars) for mean in means)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _bar(value: float, low: float, high: float, bars: str) -> str:
    if high <= low:
        return bars[len(bars) // 2]
    return bars[min(len(bars) - 1, int((value - low) / (high - low) * len(bars)))]
