"""Advantages against a re-derivation in plain Python, one loop per line of paper.md section 1."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.settings import LearnerSettings
from learner.advantage import Group, advantages, batch_advantages
from scorer.hero import stratified_rewards

RULES = ("centered", "normalized_then_weighted", "normalized")
groups = st.lists(st.floats(-2.0, 2.0, allow_subnormal=False), min_size=1, max_size=16)
weights = st.floats(0.4, 3.0)


def slow(r_hat: list[float], weight: float, rule: str) -> list[float]:
    rewards = [weight * r for r in r_hat] if rule in ("centered", "normalized") else list(r_hat)
    mean = math.fsum(rewards) / len(rewards)
    if rule == "centered":
        return [r - mean for r in rewards]
    squares = math.fsum((r - mean) ** 2 for r in rewards)
    std = math.sqrt(squares / (len(rewards) - 1)) if len(rewards) > 1 else 0.0
    scaled = [(r - mean) / (std + 1e-6) for r in rewards]
    return [weight * a for a in scaled] if rule == "normalized_then_weighted" else scaled


@given(groups, weights, st.sampled_from(RULES))
def test_equals_the_slow_formula(r_hat: list[float], weight: float, rule: str) -> None:
    result = advantages(r_hat, weight, rule)
    assert result.dtype == np.float64
    assert result == pytest.approx(slow(r_hat, weight, rule), abs=1e-7)


@given(st.lists(st.sampled_from([-0.05, 0.0, 0.05, 0.95, 1.05]), min_size=2, max_size=16), weights)
def test_the_weight_cancels_under_normalized(r_hat: list[float], weight: float) -> None:
    """paper.md: advantages move by less than 5e-5, what is left of eps."""
    assert advantages(r_hat, weight, "normalized") == pytest.approx(advantages(r_hat, 1.0, "normalized"), abs=2e-4)


@given(groups, weights, st.floats(0.5, 1.0))
def test_corpo_encourages_nothing_below_the_least_reward_of_a_right_one(
    r_hat: list[float], weight: float, floor: float
) -> None:
    got = advantages(r_hat, weight, "corpo", floor)
    paid = [weight * r for r in r_hat]
    baseline = max(math.fsum(paid) / len(paid), weight * floor)
    assert got == pytest.approx([r - baseline for r in paid], abs=1e-9)
    assert all(gain <= 1e-9 for gain, r in zip(got, r_hat, strict=True) if r < floor)


def test_corpo_by_hand() -> None:
    # One right of four, far above the wrong ones: centered pays the luckiest wrong one in the second group, corpo none
    assert advantages([0.1, -0.1, 1.1], 1.0, "corpo", 0.9) == pytest.approx([-0.8, -1.0, 0.2])
    assert advantages([0.1, -0.1], 1.0, "centered") == pytest.approx([0.1, -0.1])
    assert advantages([0.1, -0.1], 1.0, "corpo", 0.9) == pytest.approx([-0.8, -1.0])
    assert advantages([1.1, 0.9], 1.0, "corpo", 0.9) == pytest.approx([0.1, -0.1]), "all right: the mean is above"


@pytest.mark.parametrize("rule", ["centered", "normalized_then_weighted"])
def test_the_weight_acts_under_the_other_rules(rule: str) -> None:
    assert advantages([0.0, 1.0], 3.0, rule) == pytest.approx(3.0 * advantages([0.0, 1.0], 1.0, rule))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("r_hat", [[0.3], [0.1] * 3, [0.95] * 7])
def test_one_completion_or_equal_rewards_teach_nothing(r_hat: list[float], rule: str) -> None:
    assert advantages(r_hat, 2.7, rule).tolist() == [0.0] * len(r_hat)


@given(groups, weights, st.sampled_from(RULES))
def test_advantages_of_a_group_sum_to_zero(r_hat: list[float], weight: float, rule: str) -> None:
    assert advantages(r_hat, weight, rule).sum() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("r_hat", "weight", "rule", "says"),
    [
        ([], 1.0, "centered", "N >= 1"),
        ([[1.0, 0.0]], 1.0, "centered", "shape"),
        ([math.nan, 1.0], 1.0, "centered", "not finite"),
        ([0.0, 1.0], 0.0, "centered", "weight = 0.0"),
        ([0.0, 1.0], math.inf, "centered", "weight = inf"),
        ([0.0, 1.0], 1.0, "grpo", "choose one of centered"),
    ],
)
def test_impossible_input_is_refused(r_hat: list[float], weight: float, rule: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        advantages(r_hat, weight, rule)  # type: ignore[arg-type]


@given(groups, weights, st.sampled_from([*RULES, "corpo"]), st.randoms(use_true_random=False))
def test_advantages_follow_their_completions_around(r_hat: list[float], weight: float, rule: str, random: Any) -> None:
    order = random.sample(range(len(r_hat)), len(r_hat))
    straight, shuffled = (advantages(r, weight, rule, 0.9) for r in (r_hat, [r_hat[i] for i in order]))
    assert shuffled == pytest.approx(straight[order], abs=1e-9)


@given(st.lists(groups, min_size=1, max_size=5), weights, st.sampled_from([*RULES, "corpo"]))
def test_a_batch_is_its_groups_one_by_one(batch: list[list[float]], weight: float, rule: Any) -> None:
    made = [Group(np.zeros(len(r_hat), bool), None, np.array(r_hat), weight) for r_hat in batch]
    got = batch_advantages(made, LearnerSettings(advantage=rule), 0.9)
    assert [g.tolist() for g in got] == [advantages(r_hat, weight, rule, 0.9).tolist() for r_hat in batch]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(-20, 20)), min_size=1, max_size=12),
    st.floats(0, 0.45),
    st.floats(0, 0.45),
    weights,
)
def test_corpo_encourages_no_wrong_completion_whatever_the_reward_model_says(
    group: list[tuple[bool, float]], alpha: float, beta: float, weight: float
) -> None:
    right = np.array([c for c, _ in group])
    r_hat = stratified_rewards(right, [s for _, s in group], alpha=alpha, beta=beta)
    gains = advantages(r_hat, weight, "corpo", 1 - beta)
    assert (gains[~right] <= 0).all()


def test_all_silenced_is_a_batch_too() -> None:
    group = Group(np.zeros(2, bool), np.array([1.0, 2.0]), np.array([-0.1, 0.1]), 1.0)
    for rule in ("centered", "gdpo", "dara", "papo"):
        [gains] = batch_advantages([group], LearnerSettings(advantage=rule), silenced=[True])
        assert gains.tolist() == [0.0, 0.0]
