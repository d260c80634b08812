"""Advantages against a re-derivation in plain Python, one loop per line of paper.md section 1."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.advantage import advantages

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
