"""The running mean and deviation of sigma_u, which all scorers of a run share. Pure.

Scorers hand over in no fixed order, and the last groups count most, so the order has a part in the mean. With momentum
m and spreads within a range R, two orders of the same B groups end at most

    R (1 - m^(B/2))^2        (B even; odd: R (1 - m^((B-1)/2)) (1 - m^((B+1)/2)))

apart: the largest ones last, or first. Orders that differ within every B groups alone are never more than

    R (1 - m^(B/2)) / (1 + m^(B/2))

apart after any number of them. A scorer that has not seen the last L groups of others is at most R (1 - m^L) off.
`python -m tests.bench sigma` says what w makes of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_WRITTEN = re.compile(rb"(\S{1,40}) (\S{1,40})")


@dataclass(frozen=True)
class Sigma:
    """Exponential mean and standard deviation of sigma_u over the groups of a run. Sigma(bar=0.59, dev=0.74)"""

    bar: float
    """sigma_bar of Eq. 4 (arXiv:2510.07242)."""
    dev: float = 0.0
    """sigma_dev; 0 for as long as no two groups differed."""

    @classmethod
    def read(cls, raw: bytes) -> Sigma | None:
        """What `written` made; None for what it cannot have."""
        match = _WRITTEN.fullmatch(raw)
        try:
            numbers = [float(part) for part in match.groups()] if match else [math.nan]
        except ValueError:
            return None
        return cls(*numbers) if all(0 <= number < math.inf for number in numbers) else None

    def written(self) -> str:
        """As the broker has it."""
        return f"{self.bar!r} {self.dev!r}"

    def after(self, sigma_u: float, momentum: float) -> Sigma:
        """With one more group; `common/lua/hand_over.lua` does the same on the server.

        The variance has the exponential weights of the mean: m (dev^2 + (1 - m) (sigma_u - bar)^2).
        """
        away = sigma_u - self.bar
        variance = momentum * (self.dev * self.dev + (1 - momentum) * (away * away))
        return Sigma(momentum * self.bar + (1 - momentum) * sigma_u, math.sqrt(variance))


def next_sigma(sigma: Sigma | None, sigma_u: float | None, momentum: float) -> Sigma | None:
    """After one more group: the first spread starts it, a group without scores (None) moves nothing."""
    if sigma_u is None:
        return sigma
    return Sigma(sigma_u) if sigma is None else sigma.after(sigma_u, momentum)
