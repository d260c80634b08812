"""From verdicts and reward-model scores to the rewards of one group, for every reward mode. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from common.scores import lowest_for_lost
from common.sigma import Sigma
from scorer.hero import Dense, Floats, Lone, difficulty_weight, scale_free_weight, stratified_rewards

Mode = Literal["hero", "verifier", "rm", "blend"]
Weighting = Literal["paper", "scale_free", "off"]
NEEDS_REWARD_MODEL: frozenset[Mode] = frozenset({"hero", "rm", "blend"})


class Options(Protocol):
    """The [reward] section of the settings, as far as shaping reads it."""

    @property
    def alpha(self) -> float: ...
    @property
    def beta(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def lone(self) -> Lone: ...
    @property
    def dense(self) -> Dense: ...
    @property
    def weighting(self) -> Weighting: ...
    @property
    def w_min(self) -> float: ...
    @property
    def w_max(self) -> float: ...
    @property
    def k(self) -> float: ...
    @property
    def k_z(self) -> float: ...
    @property
    def blend_weight(self) -> float: ...


@dataclass(frozen=True)
class Shaped:
    """What one group is paid, and everything needed to derive it again."""

    r_hat: Floats
    """float64 [N], before the weight."""
    weight: float
    """w of Eq. 4; 1 outside mode `hero`, and where the weighting is off."""
    rewards: Floats
    """float64 [N], weight * r_hat (Eq. 5)."""
    sigma_u: float | None
    """Standard deviation (ddof 0) of the N scores; None without scores."""
    sigma_bar: float | None
    """The running mean that the weight was taken at: the one given, or sigma_u where there was none yet."""
    sigma_dev: float | None
    """The running deviation beside it: the one given, or 0 where there was none yet; None without scores."""


def shape(
    mode: Mode,
    correct: npt.ArrayLike,
    rm_scores: npt.ArrayLike | None,
    *,
    sigma: Sigma | None,
    options: Options,
) -> Shaped:
    """Shapes the rewards of one group.

    hero: Eq. 3 to 5 of arXiv:2510.07242. verifier: 0 or 1. rm: the raw score.
    blend: c r_rule + (1 - c) r_RM on raw scores, c = options.blend_weight.

    correct: bool or 0/1 [N]. rm_scores: float [N], raw logits; None where the mode needs none.
    sigma: running mean and deviation of sigma_u over the groups before this one; None while there was none.
    Raises ValueError as `stratified_rewards` does, and when a mode lacks its scores.
    """
    label = np.asarray(correct, dtype=np.float64)
    if label.ndim != 1 or label.size == 0:
        raise ValueError(f"correct has shape {label.shape}; it must be [N] with N >= 1")
    if mode not in ("hero", "verifier", "rm", "blend"):
        raise ValueError(f"reward mode {mode!r} is not known; take hero, verifier, rm or blend")
    score = None if rm_scores is None else _scores(rm_scores, label.shape)
    sigma_u = None if score is None else spread(score)
    at = sigma if sigma is not None or sigma_u is None else Sigma(sigma_u)
    used = (at.bar, at.dev) if at is not None else (None, None)
    if mode == "verifier":
        return Shaped(label, 1.0, label, sigma_u, *used)
    if score is None or sigma_u is None or at is None:
        raise ValueError(f"reward mode {mode!r} needs reward-model scores; set a reward model or take mode 'verifier'")
    weight = 1.0
    if mode == "rm":
        r_hat = score
    elif mode == "blend":
        c = options.blend_weight
        r_hat = c * label + (1 - c) * score
    else:
        r_hat = stratified_rewards(
            correct,
            score,
            alpha=options.alpha,
            beta=options.beta,
            eps=options.eps,
            lone=options.lone,
            dense=options.dense,
        )
        weight = _weight(sigma_u, at, options)
    return Shaped(r_hat, weight, weight * r_hat, sigma_u, *used)


def _weight(sigma_u: float, sigma: Sigma, options: Options) -> float:
    if options.weighting == "off":
        return 1.0
    low, high = options.w_min, options.w_max
    if options.weighting == "paper":
        return difficulty_weight(sigma_u, sigma.bar, w_min=low, w_max=high, k=options.k)
    return scale_free_weight(sigma_u, sigma.bar, sigma.dev, w_min=low, w_max=high, k_z=options.k_z, eps=options.eps)


def reward_group(
    mode: Mode, statuses: Sequence[str], rm_scores: Floats | None, *, sigma: Sigma | None, options: Options
) -> tuple[list[str], Shaped]:
    """What the completions of one group are paid for their verdicts and scores: the settled statuses, and `shape`."""
    settled, scores = settle(statuses, rm_scores)
    correct = [status == "correct" for status in settled]
    return settled, shape(mode, correct, scores, sigma=sigma, options=options)


def spread(rm_scores: Floats) -> float:
    """sigma_u: standard deviation with ddof 0 of all N scores of a prompt, both labels together.

    rm_scores: float64 [N], finite. ddof 0, so that one completion has a spread of 0 and not of nan.
    """
    # Equal scores first: their computed mean may miss them by a rounding, and the spread must be 0 then.
    return 0.0 if rm_scores.min() == rm_scores.max() else float(np.std(rm_scores))


def settle(statuses: Sequence[str], rm_scores: Floats | None) -> tuple[list[str], Floats | None]:
    """Verdicts and scores of one group joined: no status is lost and every score is finite.

    A completion that was too long for the reward model (score nan) gets the status `context_overflow`, one that got an
    infinite score `not_finite`: neither is correct, and both have the lowest finite score of their group. On the wire
    and in logs either score is nan or null; so a `not_finite` that was recorded stays one.
    """
    if rm_scores is None:
        return list(statuses), None
    settled = [_joined(status, float(score)) for status, score in zip(statuses, rm_scores, strict=True)]
    return settled, lowest_for_lost(rm_scores)


def _joined(status: str, score: float) -> str:
    if math.isfinite(score):
        return status
    return "not_finite" if math.isinf(score) or status == "not_finite" else "context_overflow"


def _scores(rm_scores: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    score = np.asarray(rm_scores, dtype=np.float64)
    if score.shape != shape:
        raise ValueError(f"rm_scores {score.shape} and correct {shape} must both be [N], one group's completions")
    if not np.isfinite(score).all():
        raise ValueError(f"rm_scores must be finite, not {score.tolist()}; report what the reward model refused")
    return score
