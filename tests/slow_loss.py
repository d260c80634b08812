"""The loss as the papers write it, token by token in plain Python."""

from __future__ import annotations

import math

from learner.loss_inputs import KLEstimator, LossOptions
from tests.loss_cases import Token

Sequence = list[Token]
Slow = list[tuple[float, float, bool, bool]]
"""Of each token: the gain, its slope along log pi, whether the clip acted below, and above."""


def clip(x: float, o: LossOptions) -> float:
    return min(max(x, 1 - o.clip_low), 1 + o.clip_high)


def held_back(rho: float, advantage: float, o: LossOptions) -> tuple[bool, bool]:
    return advantage < 0 and rho < 1 - o.clip_low, advantage > 0 and rho > 1 + o.clip_high


def ppo(y: Sequence, o: LossOptions) -> Slow:
    """Eq. 7 of arXiv:1707.06347; d rho / d log pi = rho where the minimum is not the clipped one."""
    result = []
    for t in y:
        rho = math.exp(t.pi) / math.exp(t.prox)
        free, held = rho * t.advantage, clip(rho, o) * t.advantage
        result.append((min(free, held), free if free <= held else 0.0, *held_back(rho, t.advantage, o)))
    return result


def gspo(y: Sequence, o: LossOptions) -> Slow:
    """Eq. 5 of arXiv:2507.18071; each of the |y| tokens has a part of 1 / |y| in the ratio of all |y|."""
    s = math.prod(math.exp(t.pi) / math.exp(t.prox) for t in y) ** (1 / len(y))
    result = []
    for t in y:
        free, held = s * t.advantage, clip(s, o) * t.advantage
        slope = math.fsum(free / len(y) if free <= held else 0.0 for _ in y)
        result.append((min(free, held), slope, *held_back(s, t.advantage, o)))
    return result


def cispo(y: Sequence, o: LossOptions) -> Slow:
    """arXiv:2506.13585: sg(clip(r)) A log pi, whose slope is sg(clip(r)) A."""
    result = []
    for t in y:
        r = math.exp(t.pi) / math.exp(t.mu)
        slope = clip(r, o) * t.advantage
        result.append((slope * t.pi, slope, r < 1 - o.clip_low, r > 1 + o.clip_high))
    return result


OBJECTIVES = {"ppo": ppo, "gspo": gspo, "cispo": cispo}


def product(y: Sequence) -> float:
    return math.prod(math.exp(t.prox) / math.exp(t.mu) for t in y)


def root(y: Sequence) -> float:
    return math.exp(math.fsum(t.prox - t.mu for t in y) / len(y))


def weights(y: Sequence, o: LossOptions) -> list[tuple[float, bool, bool]]:
    """Of each token: the weight, whether it was capped, whether it was zeroed."""
    return [_weight(root(y) if o.objective == "gspo" else product([t]), o) for t in y]


def _weight(m: float, o: LossOptions) -> tuple[float, bool, bool]:
    if o.correction == "none":
        return 1.0, False, False
    if o.correction == "tis":
        return min(m, o.tis_cap), m > o.tis_cap, False
    if o.correction == "icepop":
        inside = o.icepop_low <= m <= o.icepop_high
        return (m if inside else 0.0), False, not inside
    return m, False, False


def kept(y: Sequence, o: LossOptions) -> bool:
    if not y or o.sequence_mask == "none":
        return True
    return o.mask_low <= (product(y) if o.sequence_mask == "product" else root(y)) <= o.mask_high


def divergence(pi: float, other: float, estimator: KLEstimator) -> float:
    """With r = other / pi of a token that pi sampled: -log r, (log r)^2 / 2, r - 1 - log r (Schulman, 2020)."""
    r = math.exp(other) / math.exp(pi)
    return {"k1": -math.log(r), "k2": math.log(r) ** 2 / 2, "k3": r - 1 - math.log(r)}[estimator]


def slope_of_divergence(pi: float, other: float, estimator: KLEstimator) -> float:
    """Along log pi."""
    r = math.exp(other) / math.exp(pi)
    return {"k1": 1.0, "k2": -math.log(r), "k3": 1 - r}[estimator]


def loss(batch: list[Sequence], o: LossOptions) -> tuple[float, list[float]]:
    """The loss, and its slope along each token's log pi."""
    terms, slopes = [], []
    for y in batch:
        rows = zip(y, OBJECTIVES[o.objective](y, o), weights(y, o), strict=True)
        for t, (gain, slope, _, _), (weight, _, _) in rows:
            penalty = o.kl_coefficient * divergence(t.pi, t.ref, o.kl_estimator) - o.entropy_coefficient * t.entropy
            along = o.kl_coefficient * slope_of_divergence(t.pi, t.ref, o.kl_estimator)
            share = t.share if kept(y, o) else 0.0
            terms.append(share * (penalty - weight * gain))
            slopes.append(share * (along - weight * slope))
    return math.fsum(terms), slopes
