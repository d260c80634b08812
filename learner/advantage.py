"""Rewards of one group to advantages, by the three rules whose difference decides whether HERO's weight acts.

The paper (arXiv:2510.07242) does not say whether advantages are divided by the group's standard deviation.
With that division the group's weight w cancels, so the rule is a setting and the default does not divide.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Rule = Literal["centered", "normalized_then_weighted", "normalized", "corpo"]

_EPS = 1e-6  # verl and TRL add the same to the standard deviation


def advantages(r_hat: npt.ArrayLike, weight: float, rule: Rule, correct_floor: float = 1.0) -> npt.NDArray[np.float64]:
    """Advantages of one group: float64 [N] from `r_hat` float [N] (Eq. 3) and `weight` w > 0 (Eq. 4).

    - `centered`: A = w * r_hat - mean(w * r_hat), the form of Dr. GRPO (arXiv:2503.20783).
    - `normalized_then_weighted`: A = w * (r_hat - mean) / (std + 1e-6).
    - `normalized`: A = (w * r_hat - mean) / (std + 1e-6) over w * r_hat, so w cancels; for audits.
    - `corpo`: A = w * r_hat - max(mean(w * r_hat), w * correct_floor), after CoRPO (arXiv:2511.04439): the baseline is
      never below the least reward of a correct completion (`correct_floor`, 1 - beta), so no wrong one is encouraged.

    The standard deviation has ddof 1. A group of one, or of equal rewards, gets zeros under every rule but `corpo`.
    Raises ValueError for an empty group, another shape, values that are not finite, or an unknown rule.
    """
    rewards = np.asarray(r_hat, dtype=np.float64)
    if rewards.ndim != 1 or rewards.size == 0:
        raise ValueError(f"r_hat has shape {rewards.shape}; pass the rewards of one group, [N] with N >= 1")
    if not np.isfinite(rewards).all():
        raise ValueError(f"r_hat = {rewards.tolist()} holds values that are not finite; drop the group")
    if not (np.isfinite(weight) and weight > 0):
        raise ValueError(f"weight = {weight!r}; it must be finite and positive (1 outside HERO)")
    if rule == "centered":
        return _centered(weight * rewards)
    if rule == "normalized_then_weighted":
        return np.asarray(weight * _normalized(rewards))
    if rule == "normalized":
        return _normalized(weight * rewards)
    if rule == "corpo":
        paid = weight * rewards
        return np.asarray(paid - max(float(paid.mean()), weight * correct_floor), dtype=np.float64)
    raise ValueError(f"advantage rule {rule!r} is unknown; choose one of {', '.join(get_args(Rule))}")


def _centered(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # The mean of equal floats may differ from them in the last bit; divided by eps that would show.
    if (values == values[0]).all():
        return np.zeros_like(values)
    return np.asarray(values - values.mean(), dtype=np.float64)


def _normalized(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centered = _centered(values)
    std = np.sqrt(np.square(centered).sum() / max(values.size - 1, 1))
    return np.asarray(centered / (std + _EPS), dtype=np.float64)
