"""The learning rate over the optimizer steps of a run. Pure, so that nothing of it needs saving."""

from __future__ import annotations

import math
from typing import Literal

Shape = Literal["constant", "linear", "cosine"]


def factor(step: float, *, warmup_steps: float, total_steps: float, shape: Shape, final: float) -> float:
    """Of the full learning rate at optimizer step `step`, counted from 0.

    Rises linearly over `warmup_steps`, the first of them included; then `constant`, or `linear` or along half a cosine
    (SGDR, arXiv:1608.03983, Eq. 5, without restarts) to `final` after `total_steps`. Beyond them it stays there.
    """
    if step < warmup_steps:
        return min(1.0, (step + 1) / warmup_steps)
    if shape == "constant":
        return 1.0
    done = min(1.0, (step - warmup_steps) / max(total_steps - warmup_steps, 1))
    left = 1.0 - done if shape == "linear" else (1.0 + math.cos(math.pi * done)) / 2
    return final + (1.0 - final) * left
