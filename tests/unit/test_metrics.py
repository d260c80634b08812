"""What is reported of a batch, against loops in plain Python."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest

from common.schema import Scored
from learner.metrics import batch_metrics
from tests import make

NAN = float("nan")


def group(statuses: list[str], scores: list[float] | None, rewards: list[float], **changes: object) -> Scored:
    n = len(statuses)
    rollout = make.rollout(make.ticket(completions=n), tokens=4, step=int(changes.pop("made_at", 3)))
    scored = make.scored(rollout)
    values = {
        "statuses": statuses,
        "rm_scores": None if scores is None else np.array(scores),
        "r_hat": np.array(rewards),
    }
    return dataclasses.replace(scored, **values | changes)


def test_a_batch_is_summed_up() -> None:
    mixed = group(["correct", "wrong", "timeout"], [3.0, 1.0, 3.0], [1.1, -0.1, 0.1], weight=2.0, made_at=4)
    wrong = group(["wrong", "no_answer", "wrong"], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], weight=1.0, made_at=3)
    gains = [np.array([1.0, -0.6, -0.4]), np.zeros(3)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = batch_metrics([mixed, wrong], gains, step=5)

    rewards = [2.2, -0.2, 0.2, 0, 0, 0]
    mean = sum(rewards) / 6
    expected = {
        "reward_mean": mean,
        "reward_std": math.sqrt(sum((r - mean) ** 2 for r in rewards) / 6),
        "accuracy": 1 / 6,
        "r_hat_mean": 1.1 / 6,
        "weight_mean": 1.5,
        "uniform_group_share": 0.5,
        "all_wrong_share": 0.5,
        "zero_advantage_group_share": 0.5,
        "advantage_abs_mean": 2.0 / 6,
        "staleness_min": 1,
        "staleness_mean": 1.5,
        "staleness_max": 2,
        "sampled_tokens": 24,
        "completion_tokens_max": 4,
        "status_wrong": 3,
        "status_timeout": 1,
        "rm_score_mean": 7 / 6,
        "rm_auroc_mixed_groups": 0.75,  # one pair in order, one tie
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    json.dumps(found, allow_nan=False)


def test_what_the_model_gave_no_score_says_nothing_about_the_model() -> None:
    lost = group(["correct", "context_overflow", "not_finite"], [-5.0, NAN, NAN], [1.0, 0.0, 0.0])
    found = batch_metrics([lost], [np.ones(3)], 3)
    assert found["rm_score_mean"] == -5.0 and "rm_auroc_mixed_groups" not in found
    mixed = group(["correct", "context_overflow", "wrong"], [-5.0, NAN, -4.0], [1.0, 0.0, 0.0])
    assert batch_metrics([lost, mixed], [np.ones(3)] * 2, 3)["rm_auroc_mixed_groups"] == 0.0


def test_the_newest_sigma_is_reported() -> None:
    old, new = (dataclasses.replace(make.scored(make.rollout(make.ticket(id=i))), sigma_dev=0.1 * i) for i in (1, 2))
    none = group(["wrong"], None, [0.0], sigma_bar=None, sigma_dev=None)
    found = batch_metrics([old, new, none], [np.ones(1)] * 3, 3)
    assert (found["sigma_bar"], found["sigma_dev"]) == (0.5, 0.2)


@pytest.mark.parametrize("scores", [None, [NAN, NAN]])
def test_without_a_single_score_the_report_is_still_json(scores: list[float] | None) -> None:
    found = batch_metrics([group(["wrong", "wrong"], scores, [0.0, 0.0])], [np.zeros(2)], 3)
    assert found.get("rm_score_mean") is None and "rm_auroc_mixed_groups" not in found
    json.dumps(found, allow_nan=False)
