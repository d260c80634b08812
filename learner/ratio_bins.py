"""The bins of `ratio_histogram`: a quarter of an octave of pi / mu each, the middle one around 1, the outer open."""

from __future__ import annotations

_LOG2_EDGES = [(step + 0.5) / 4 for step in range(-17, 17)]  # from 1/16 to 16
RATIO_EDGES = tuple(2.0**edge for edge in _LOG2_EDGES)
CLOSED_LOG2_EDGES = (_LOG2_EDGES[0] - 0.25, *_LOG2_EDGES, _LOG2_EDGES[-1] + 0.25)
"""Of the same bins as they are drawn: in log2, and the outer two as wide as the others."""
