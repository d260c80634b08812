"""What a batch looked like, under the names that people look for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.schema import Scored
from learner.groups import graded
from learner.reliability import in_group_auroc


def batch_metrics(groups: Sequence[Scored], advantages: Sequence[NDArray[np.float64]], step: int) -> dict[str, Any]:
    """Rewards by part, strata, statuses, lengths, staleness of one batch trained at `step`."""
    completions = [c for group in groups for c in group.rollout.completions]
    lengths = np.array([len(c.ids) for c in completions])
    statuses = Counter(status for group in groups for status in group.statuses)
    rewards = np.concatenate([group.rewards for group in groups])
    correct = [np.array([s == "correct" for s in group.statuses]) for group in groups]
    uniform = [bool(c.all() or not c.any()) for c in correct]
    staleness = np.array([step - group.oldest_step for group in groups])
    scores = [group.rm_scores for group in groups if group.rm_scores is not None]
    metrics: dict[str, Any] = {
        "reward_mean": rewards.mean(),
        "reward_std": rewards.std(),
        "accuracy": np.concatenate(correct).mean(),
        "r_hat_mean": np.concatenate([group.r_hat for group in groups]).mean(),
        "weight_mean": np.mean([group.weight for group in groups]),
        "uniform_group_share": np.mean(uniform),
        "all_wrong_share": np.mean([not c.any() for c in correct]),
        "zero_advantage_group_share": np.mean([not a.any() for a in advantages]),
        "advantage_abs_mean": np.abs(np.concatenate(advantages)).mean(),
        "completion_tokens_mean": lengths.mean(),
        "completion_tokens_max": lengths.max(),
        "truncated_share": np.mean([c.finish == "length" for c in completions]),
        "staleness_min": staleness.min(),
        "staleness_mean": staleness.mean(),
        "staleness_max": staleness.max(),
        "sampled_tokens": lengths.sum(),
    }
    metrics |= {f"status_{name}": count for name, count in statuses.items()}
    if scores:
        judged = np.concatenate(scores)
        metrics["rm_score_mean"] = judged[~np.isnan(judged)].mean() if not np.isnan(judged).all() else None
        metrics["sigma_u_mean"] = np.mean([g.sigma_u for g in groups if g.sigma_u is not None])
        for name in ("sigma_bar", "sigma_dev"):
            metrics[name] = next((v for g in reversed(groups) if (v := getattr(g, name)) is not None), None)
        inside = in_group_auroc([graded(group) for group in groups])
        if inside is not None:
            metrics["rm_auroc_mixed_groups"] = inside
    return {name: _plain(value) for name, value in metrics.items()}


def _plain(value: Any) -> int | float | None:
    if value is None:
        return None
    number = value.item() if isinstance(value, np.generic) else value
    return int(number) if isinstance(number, int) else round(float(number), 6)
