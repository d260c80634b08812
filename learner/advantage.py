"""Rewards of a batch of groups to advantages, by rules whose difference decides whether HERO's weight acts.

The paper (arXiv:2510.07242) does not say whether advantages are divided by the group's standard deviation.
With that division the group's weight w cancels, so the rule is a setting and the default does not divide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from common.scores import lowest_for_lost
from learner.channels import Bools, dara, gdpo, papo
from learner.normalize import Floats, centered, normalized

GroupRule = Literal["centered", "normalized_then_weighted", "normalized", "corpo"]
Rule = Literal[GroupRule, "gdpo", "dara", "papo"]
SEPARATE: frozenset[Rule] = frozenset({"gdpo", "dara", "papo"})
"""Rules that take verdicts and scores apart, and leave r_hat and weight aside."""


class Options(Protocol):
    """The [learner] section of the settings, as far as advantages depend on it."""

    @property
    def advantage(self) -> Rule: ...
    @property
    def verifier_weight(self) -> float: ...
    @property
    def rm_weight(self) -> float: ...
    @property
    def density_cap(self) -> float: ...
    @property
    def process_weight(self) -> float: ...


@dataclass(frozen=True)
class Group:
    """One group of N completions, as far as its advantages depend on it."""

    correct: Bools
    """bool [N], the verdicts."""
    rm_scores: Floats | None
    """float64 [N], NaN for a completion without one; None where the mode needs no reward model."""
    r_hat: Floats
    """float64 [N], Eq. 3."""
    weight: float
    """w of Eq. 4."""

    @property
    def uniform(self) -> bool:
        """All wrong or all right: the verdicts rank nobody."""
        return bool(self.correct.all() or not self.correct.any())


def batch_advantages(
    groups: Sequence[Group], options: Options, correct_floor: float = 1.0, silenced: Sequence[bool] = ()
) -> list[Floats]:
    """Advantages of the groups of one batch: float64 [N] each.

    By `advantages` for each group alone, or by a rule of `learner.channels` over all of them. The groups that are
    `silenced`, one bool for each, get zeros and are no part of the batch. Raises ValueError as `advantages` does, and
    where a rule lacks the scores.
    """
    silent = silenced or [False] * len(groups)
    heard = [group for group, mute in zip(groups, silent, strict=True) if not mute]
    gains = iter(_advantages(heard, options, correct_floor) if heard else [])
    return [np.zeros(len(group.r_hat)) if mute else next(gains) for group, mute in zip(groups, silent, strict=True)]


def _advantages(groups: Sequence[Group], options: Options, correct_floor: float) -> list[Floats]:
    rule = options.advantage
    if rule == "gdpo":
        return gdpo(*_apart(groups, rule), options.verifier_weight, options.rm_weight)
    if rule == "dara":
        return dara(*_apart(groups, rule), options.verifier_weight, options.rm_weight, options.density_cap)
    if rule == "papo":
        return papo(*_apart(groups, rule), options.process_weight)
    return [advantages(g.r_hat, g.weight, rule, correct_floor) for g in groups]


def _apart(groups: Sequence[Group], rule: Rule) -> tuple[list[Bools], list[Floats]]:
    scores = [lowest_for_lost(g.rm_scores) for g in groups if g.rm_scores is not None]
    if len(scores) < len(groups):
        raise ValueError(f"advantage rule {rule!r} needs reward-model scores; take reward.mode hero or another rule")
    return [g.correct for g in groups], scores


def advantages(r_hat: npt.ArrayLike, weight: float, rule: GroupRule, correct_floor: float = 1.0) -> Floats:
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
        return centered(weight * rewards)
    if rule == "normalized_then_weighted":
        return np.asarray(weight * normalized(rewards))
    if rule == "normalized":
        return normalized(weight * rewards)
    if rule == "corpo":
        paid = weight * rewards
        return np.asarray(paid - max(float(paid.mean()), weight * correct_floor), dtype=np.float64)
    raise ValueError(f"advantage rule {rule!r} is unknown; choose one of {', '.join(get_args(GroupRule))}")
