"""HERO's two equations as pure functions over one group (arXiv:2510.07242, Eq. 3 and 4).

Needs numpy alone, so the reward can be re-derived anywhere from a reward log.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

Lone = Literal["floor", "center"]
Dense = Literal["both", "positives", "negatives", "none"]
Floats = npt.NDArray[np.float64]


def stratified_rewards(
    correct: npt.ArrayLike,
    rm_scores: npt.ArrayLike,
    *,
    alpha: float,
    beta: float,
    eps: float = 1e-6,
    lone: Lone = "floor",
    dense: Dense = "both",
) -> Floats:
    """Reward-model scores squeezed into one band per verifier label (Eq. 3).

    Within the completions of the same label, z = (score - min) / (max - min + eps), and

        r_hat = -alpha + 2 alpha z       where the verifier says wrong, in [-alpha, +alpha]
        r_hat = (1 - beta) + 2 beta z    where it says correct,         in [1 - beta, 1 + beta]

    correct: bool or 0/1 [N], the verifier's labels of one group. rm_scores: float [N], raw logits.
    lone: z of a stratum that has one member, or whose scores are all equal. "floor" is z = 0, what the
    formula gives; "center" is z = 0.5, which makes the reward of such a stratum the plain 0 or 1.
    dense: the strata that get a band; the others keep the plain 0 or 1 (the paper's ablation of the dense range).

    Returns r_hat: float64 [N]. Raises ValueError on an empty group, unequal shapes, labels other than
    0 and 1, scores that are not finite, and bands that touch (alpha + beta >= 1).
    """
    label, score = _one_group(correct, rm_scores)
    if not (alpha >= 0 and beta >= 0 and alpha + beta < 1):
        raise ValueError(
            f"alpha = {alpha}, beta = {beta}: both must be >= 0 and their sum below 1, "
            "or a wrong completion can score above a correct one"
        )
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps = {eps}: it must be finite and >= 0")
    if dense not in ("both", "positives", "negatives", "none"):
        raise ValueError(f"dense = {dense!r}: it must be 'both', 'positives', 'negatives' or 'none'")
    if lone not in ("floor", "center"):
        raise ValueError(f"lone = {lone!r}: it must be 'floor' (z = 0) or 'center' (z = 0.5)")
    rewards = label.astype(np.float64)
    bands = (("negatives", ~label, -alpha, 2 * alpha), ("positives", label, 1 - beta, 2 * beta))
    for name, stratum, floor, width in bands:
        if dense in (name, "both") and stratum.any():
            rewards[stratum] = floor + width * _normalized(score[stratum], eps, lone)
    return rewards


def difficulty_weight(
    sigma_u: float, sigma_bar: float, *, w_min: float = 0.4, w_max: float = 3.0, k: float = 6.0
) -> float:
    """Weight of one prompt by how much its completions' scores spread (Eq. 4).

    w = w_min + (w_max - w_min) / (1 + exp(-k (sigma_u - sigma_bar)))

    sigma_u: standard deviation (ddof 0) of the group's N raw scores, both labels together. sigma_bar: its
    running mean. k: per unit of raw score. Returns w in [w_min, w_max]; it saturates, never overflows.
    Raises ValueError on values that are not finite, negative deviations, and w_min above w_max.
    """
    _check(w_min, w_max, {"k": k}, {"sigma_u": sigma_u, "sigma_bar": sigma_bar})
    return _between(w_min, w_max, k * (sigma_u - sigma_bar))


def scale_free_weight(
    sigma_u: float,
    sigma_bar: float,
    sigma_dev: float,
    *,
    w_min: float = 0.4,
    w_max: float = 3.0,
    k_z: float = 1.7,
    eps: float = 1e-6,
) -> float:
    """Eq. 4 on the z-score of sigma_u, so that the reward model's units do not matter (not in the paper).

    w = w_min + (w_max - w_min) / (1 + exp(-k_z (sigma_u - sigma_bar) / (sigma_dev + eps)))

    sigma_dev: running standard deviation of sigma_u; while nothing but rounding was seen to differ, z is 0. k_z: per
    standard deviation; a logistic curve of slope 1.7 is the normal distribution's within 0.01, so w of a normal
    sigma_u is spread about evenly over [w_min, w_max]. Returns and raises as `difficulty_weight`.
    """
    deviations = {"sigma_u": sigma_u, "sigma_bar": sigma_bar, "sigma_dev": sigma_dev}
    _check(w_min, w_max, {"k_z": k_z, "eps": eps}, deviations)
    # Equal spreads in other units differ by a rounding; divided by that alone, z would be anything.
    known = sigma_dev > 1e-9 * sigma_bar
    return _between(w_min, w_max, k_z * (sigma_u - sigma_bar) / (sigma_dev + eps) if known else 0.0)


def _check(w_min: float, w_max: float, others: Mapping[str, float], deviations: Mapping[str, float]) -> None:
    values = {**deviations, "w_min": w_min, "w_max": w_max, **others}
    told = ", ".join(f"{name} = {value}" for name, value in values.items())
    if not all(map(math.isfinite, values.values())):
        raise ValueError(f"not finite: {told}")
    if min(deviations.values()) < 0:
        raise ValueError(f"a standard deviation is >= 0: {told}")
    if w_min > w_max:
        raise ValueError(f"w_min = {w_min} is above w_max = {w_max}")


def _between(low: float, high: float, x: float) -> float:
    """The logistic curve of x, from `low` to `high`."""
    # exp() only of what is <= 0: the formula as written overflows beyond |x| = 709.
    tail = math.exp(-abs(x))
    sigmoid = 1 / (1 + tail) if x >= 0 else tail / (1 + tail)
    # The min() takes back the last bit that rounding may add to `high`.
    return min(high, low + (high - low) * sigmoid)


def _normalized(score: Floats, eps: float, lone: Lone) -> Floats:
    """z of one stratum, in [0, 1]; score: float64 [>= 1]."""
    low, high = score.min(), score.max()
    if low == high:
        return np.full_like(score, 0.5 if lone == "center" else 0.0)
    # Halved: high - low of two finite doubles may overflow, of their halves it cannot.
    z: Floats = (score / 2 - low / 2) / (high / 2 - low / 2 + eps / 2)
    return z


def _one_group(correct: npt.ArrayLike, rm_scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Floats]:
    label, score = np.asarray(correct), np.asarray(rm_scores, dtype=np.float64)
    if label.ndim != 1 or label.shape != score.shape:
        raise ValueError(f"correct {label.shape} and rm_scores {score.shape} must both be [N], one group's completions")
    if label.size == 0:
        raise ValueError("the group is empty: it needs at least one completion")
    if not np.isin(label, (0, 1)).all():
        raise ValueError(f"correct must hold 0 and 1 alone, not {label.tolist()}")
    if not np.isfinite(score).all():
        raise ValueError(f"rm_scores must be finite, not {score.tolist()}; report what the reward model refused")
    return label.astype(np.bool_), score
