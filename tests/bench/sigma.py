"""What the order of groups does to the weight w: many scorers move sigma_bar and sigma_dev in no fixed order.

The spreads sigma_u of a run are taken in many orders, each group anywhere among those in flight with it, by several
scorers that each read sigma once for a batch; for every group its w is compared with that of one scorer in the order of
the tickets. Spreads are lognormal, or those in the reward log of the run whose folder SIGMA_RUN names.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.settings import RewardSettings
from common.sigma import Sigma, next_sigma
from deploy.recorded import groups
from scorer.hero import difficulty_weight, scale_free_weight

LOG_MEAN, LOG_DEV = -0.8, 0.9  # about a quickstart's mean spread, 0.6, and its deviation, 0.75
GROUPS = 3840  # 120 steps of 32
IN_FLIGHT = 96  # of a bound of two steps
BATCH = 16  # scorer.batch_groups
ORDERS = 10
SETTLED = 320  # groups after which sigma_bar no longer hangs on the first few: 0.99^320 is 0.04
TARGET = 0.1  # w is spread over a factor of 7.5, so a tenth changes no prompt's rank by much


def run() -> list[dict[str, Any]]:
    """A row for each weighting: `ratio` is the mean relative change of w, four scorers and shuffled arrival."""
    folder = os.environ.get("SIGMA_RUN")
    spreads = _recorded(Path(folder)) if folder else _lognormal(GROUPS, random.Random(0))
    rows = []
    for weighting in ("paper", "scale_free"):
        options = RewardSettings(weighting=weighting)
        cases = {
            "order": [_changes(spreads, options, seed, scorers=1, shuffled=True) for seed in range(ORDERS)],
            "stale reads": [_changes(spreads, options, seed, scorers=4, shuffled=False) for seed in range(ORDERS)],
            "both": [_changes(spreads, options, seed, scorers=4, shuffled=True) for seed in range(ORDERS)],
        }
        told = {name: _told(np.stack(changes)) for name, changes in cases.items()}
        ratio = told["both"]["mean"]
        rows.append(
            {
                "name": f"sigma_{weighting}",
                "ratio": ratio,
                "target": TARGET,
                "holds": ratio <= TARGET,
                "detail": {"groups": len(spreads), "orders": ORDERS, "relative change of w": told},
            }
        )
    return rows


def _lognormal(count: int, chance: random.Random) -> list[float]:
    return [chance.lognormvariate(LOG_MEAN, LOG_DEV) for _ in range(count)]


def _recorded(folder: Path) -> list[float]:
    """In the order of the tickets, one for each."""
    found = {group["id"]: group["sigma_u"] for group in groups(folder) if group["sigma_u"] is not None}
    return [found[id] for id in sorted(found)]


def _changes(
    spreads: Sequence[float], options: RewardSettings, seed: int, *, scorers: int, shuffled: bool
) -> np.ndarray[Any, Any]:
    """|w' - w| / w of every group: w by one scorer group after group, w' as they come."""
    chance = random.Random(seed)
    # A group overtakes those that were issued up to IN_FLIGHT / 2 before it, and is overtaken by as many.
    place = {i: i + (chance.uniform(0, IN_FLIGHT) if shuffled else 0) for i in range(len(spreads))}
    straight = _weights(spreads, range(len(spreads)), options, scorers=1, batch=1, chance=chance)
    arrived = _weights(spreads, sorted(place, key=place.__getitem__), options, scorers, BATCH, chance)
    return np.asarray(np.abs(arrived - straight) / straight)


def _weights(
    spreads: Sequence[float],
    order: Sequence[int],
    options: RewardSettings,
    scorers: int,
    batch: int,
    chance: random.Random,
) -> np.ndarray[Any, Any]:
    """w of every group when `scorers` read sigma at one instant, work, and hand over in any order: the stalest case."""
    found, shared = np.zeros(len(spreads)), None
    parts = [order[start : start + batch] for start in range(0, len(order), batch)]
    for start in range(0, len(parts), scorers):
        together = list(parts[start : start + scorers])
        for part in together:
            own: Sigma | None = shared
            for i in part:
                found[i] = _weight(spreads[i], own or Sigma(spreads[i]), options)
                own = next_sigma(own, spreads[i], options.sigma_momentum)
        chance.shuffle(together)
        for part in together:
            for i in part:
                shared = next_sigma(shared, spreads[i], options.sigma_momentum)
    return found


def _weight(sigma_u: float, sigma: Sigma, options: RewardSettings) -> float:
    if options.weighting == "paper":
        return difficulty_weight(sigma_u, sigma.bar, w_min=options.w_min, w_max=options.w_max, k=options.k)
    return scale_free_weight(
        sigma_u, sigma.bar, sigma.dev, w_min=options.w_min, w_max=options.w_max, k_z=options.k_z, eps=options.eps
    )


def _told(changes: np.ndarray[Any, Any]) -> dict[str, float]:
    """changes: [orders, groups]."""
    late = changes[:, SETTLED:]
    figures = {
        "mean": changes.mean(),
        "largest": changes.max(),
        "mean, settled": late.mean(),
        "99 %, settled": np.quantile(late, 0.99),
        "largest, settled": late.max(),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}
