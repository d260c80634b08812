"""From verdicts and reward-model scores to the rewards of one group, for every reward mode. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from scorer.hero import Dense, Floats, Lone, difficulty_weight, stratified_rewards

Mode = Literal["hero", "verifier", "rm", "blend"]
Weighting = Literal["paper", "off"]
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


def shape(
    mode: Mode,
    correct: npt.ArrayLike,
    rm_scores: npt.ArrayLike | None,
    *,
    sigma_bar: float | None,
    options: Options,
) -> Shaped:
    """Shapes the rewards of one group.

    hero: Eq. 3 to 5 of arXiv:2510.07242. verifier: 0 or 1. rm: the raw score.
    blend: c r_rule + (1 - c) r_RM on raw scores, c = options.blend_weight.

    correct: bool or 0/1 [N]. rm_scores: float [N], raw logits; None where the mode needs none.
    sigma_bar: running mean of sigma_u over the groups before this one; None while there was none.
    Raises ValueError as `stratified_rewards` does, and when a mode lacks its scores.
    """
    label = np.asarray(correct, dtype=np.float64)
    if label.ndim != 1 or label.size == 0:
        raise ValueError(f"correct has shape {label.shape}; it must be [N] with N >= 1")
    if mode not in ("hero", "verifier", "rm", "blend"):
        raise ValueError(f"reward mode {mode!r} is not known; take hero, verifier, rm or blend")
    score = None if rm_scores is None else _scores(rm_scores, label.shape)
    sigma_u = None if score is None else spread(score)
    bar = sigma_u if sigma_bar is None else sigma_bar
    if mode == "verifier":
        return Shaped(label, 1.0, label, sigma_u, bar)
    if score is None or sigma_u is None or bar is None:
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
        if options.weighting == "paper":
            weight = difficulty_weight(sigma_u, bar, w_min=options.w_min, w_max=options.w_max, k=options.k)
    return Shaped(r_hat, weight, weight * r_hat, sigma_u, bar)


def reward_group(
    mode: Mode, statuses: Sequence[str], rm_scores: Floats | None, *, sigma_bar: float | None, options: Options
) -> tuple[list[str], Shaped]:
    """What the completions of one group are paid for their verdicts and scores: the settled statuses, and `shape`."""
    settled, scores = settle(statuses, rm_scores)
    correct = [status == "correct" for status in settled]
    return settled, shape(mode, correct, scores, sigma_bar=sigma_bar, options=options)


def spread(rm_scores: Floats) -> float:
    """sigma_u: standard deviation with ddof 0 of all N scores of a prompt, both labels together.

    rm_scores: float64 [N], finite. ddof 0, so that one completion has a spread of 0 and not of nan.
    """
    # Equal scores first: their computed mean may miss them by a rounding, and the spread must be 0 then.
    return 0.0 if rm_scores.min() == rm_scores.max() else float(np.std(rm_scores))


def settle(statuses: Sequence[str], rm_scores: Floats | None) -> tuple[list[str], Floats | None]:
    """Verdicts and scores of one group joined: no status is lost and every score is finite.

    A completion that was too long for the reward model (score nan) gets the status `context_overflow`, so
    it is not correct, and the lowest score of its group: too long to be judged is no merit.
    """
    if rm_scores is None:
        return list(statuses), None
    overflow = np.isnan(rm_scores)
    lowest = 0.0 if overflow.all() else rm_scores[~overflow].min()
    joined = ["context_overflow" if lost else status for status, lost in zip(statuses, overflow, strict=True)]
    return joined, np.where(overflow, lowest, rm_scores)


def next_sigma_bar(sigma_bar: float | None, sigma_u: float, momentum: float) -> float:
    """sigma_bar after one more group: its exponential mean; the first sigma_u starts it."""
    return sigma_u if sigma_bar is None else momentum * sigma_bar + (1 - momentum) * sigma_u


def _scores(rm_scores: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    score = np.asarray(rm_scores, dtype=np.float64)
    if score.shape != shape:
        raise ValueError(f"rm_scores {score.shape} and correct {shape} must both be [N], one group's completions")
    if not np.isfinite(score).all():
        raise ValueError(f"rm_scores must be finite, not {score.tolist()}; report what the reward model refused")
    return score
