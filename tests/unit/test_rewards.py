"""The four reward modes against their formulas in plain Python."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.sigma import Sigma, next_sigma
from scorer.hero import difficulty_weight, scale_free_weight, stratified_rewards
from scorer.rewards import reward_group, settle, shape, spread

OPTIONS = SimpleNamespace(
    alpha=0.1,
    beta=0.2,
    eps=1e-6,
    lone="floor",
    dense="both",
    weighting="paper",
    w_min=0.4,
    w_max=3.0,
    k=6.0,
    k_z=1.7,
    blend_weight=0.25,
)
CORRECT = [True, False, False, True]
SCORES = [2.0, -1.0, 0.5, 3.0]


def test_hero_is_the_stratified_reward_times_the_weight():
    got = shape("hero", CORRECT, SCORES, sigma=Sigma(0.9), options=OPTIONS)
    mean = sum(SCORES) / 4
    sigma_u = math.sqrt(sum((s - mean) ** 2 for s in SCORES) / 4)  # ddof 0, both labels together
    assert got.sigma_u == pytest.approx(sigma_u)
    assert got.sigma_bar == 0.9
    assert got.weight == difficulty_weight(got.sigma_u, 0.9)
    assert got.r_hat.tolist() == stratified_rewards(CORRECT, SCORES, alpha=0.1, beta=0.2).tolist()
    assert got.rewards == pytest.approx([got.weight * r for r in got.r_hat])


def test_scale_free_weighs_the_z_score():
    free = SimpleNamespace(**vars(OPTIONS) | {"weighting": "scale_free"})
    got = shape("hero", CORRECT, SCORES, sigma=Sigma(0.9, 0.2), options=free)
    assert (got.sigma_bar, got.sigma_dev) == (0.9, 0.2)
    assert got.weight == scale_free_weight(got.sigma_u, 0.9, 0.2)
    first = shape("hero", CORRECT, SCORES, sigma=None, options=free)
    assert first.sigma_dev == 0.0 and first.weight == pytest.approx((0.4 + 3.0) / 2)


@example([[(False, 6), (False, 7)], [(False, -7), (False, -8)], [(False, 0), (False, 0)]], 0.01, 0.0)
@given(
    st.lists(st.lists(st.tuples(st.booleans(), st.integers(-20, 20)), min_size=2, max_size=6), min_size=1, max_size=12),
    st.floats(0.01, 100),
    st.floats(-50, 50),
)
def test_a_run_is_paid_the_same_by_a_model_of_other_units(run, scale, offset):
    """Scale-free rewards do not change under a * score + b over a whole run, beyond what eps leaves."""
    free = SimpleNamespace(**vars(OPTIONS) | {"weighting": "scale_free", "eps": 1e-9})
    paid = []
    for a, b in ((1.0, 0.0), (scale, offset)):
        sigma, rewards = None, []
        for group in run:
            correct, scores = [c for c, _ in group], np.array([a * s + b for _, s in group])
            made = shape("hero", correct, scores, sigma=sigma, options=free)
            sigma = next_sigma(sigma, made.sigma_u, 0.99)
            rewards += made.rewards.tolist()
        paid.append(rewards)
    assert paid[1] == pytest.approx(paid[0], abs=1e-4)


def test_the_weighting_can_be_off():
    off = SimpleNamespace(**vars(OPTIONS) | {"weighting": "off"})
    got, weighted = (shape("hero", CORRECT, SCORES, sigma=Sigma(0.9), options=options) for options in (off, OPTIONS))
    assert got.weight == 1.0 and weighted.weight != 1.0
    assert got.rewards.tolist() == got.r_hat.tolist() == weighted.r_hat.tolist()


def test_the_first_group_is_weighted_at_its_own_spread():
    got = shape("hero", CORRECT, SCORES, sigma=None, options=OPTIONS)
    assert got.sigma_bar == got.sigma_u
    assert got.weight == pytest.approx((0.4 + 3.0) / 2)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("verifier", [1.0, 0.0, 0.0, 1.0]),
        ("rm", SCORES),
        ("blend", [0.25 * c + 0.75 * s for c, s in zip(CORRECT, SCORES, strict=True)]),
    ],
)
def test_the_other_modes_weigh_every_group_the_same(mode, expected):
    got = shape(mode, CORRECT, SCORES, sigma=Sigma(5.0), options=OPTIONS)
    assert got.weight == 1.0
    assert got.r_hat == pytest.approx(expected)
    assert got.rewards == pytest.approx(expected)


def test_verifier_needs_no_scores():
    got = shape("verifier", CORRECT, None, sigma=None, options=OPTIONS)
    assert got.rewards.tolist() == [1, 0, 0, 1]
    assert got.sigma_u is None
    assert got.sigma_bar is None


@pytest.mark.parametrize("mode", ["hero", "rm", "blend"])
def test_a_mode_without_its_scores_is_refused(mode):
    with pytest.raises(ValueError, match=f"'{mode}' needs reward-model scores"):
        shape(mode, CORRECT, None, sigma=None, options=OPTIONS)


@pytest.mark.parametrize("mode", ["hero", "rm", "blend", "verifier"])
@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0, 3.0, math.nan]])
def test_bad_scores_are_refused_in_every_mode(mode, scores):
    with pytest.raises(ValueError, match="rm_scores"):
        shape(mode, CORRECT, scores, sigma=None, options=OPTIONS)


def test_an_unknown_mode_and_an_empty_group_are_refused():
    with pytest.raises(ValueError, match="'best'"):
        shape("best", CORRECT, SCORES, sigma=None, options=OPTIONS)
    with pytest.raises(ValueError, match="N >= 1"):
        shape("verifier", [], None, sigma=None, options=OPTIONS)


@given(st.floats(-1e3, 1e3), st.integers(1, 20))
def test_equal_scores_have_no_spread_at_all(score, size):
    assert spread(np.full(size, score)) == 0.0


def test_a_completion_too_long_for_the_model_is_not_correct_and_scores_lowest():
    statuses, scores = settle(["correct", "wrong", "correct"], np.array([np.nan, 3.0, 1.0]))
    assert statuses == ["context_overflow", "wrong", "correct"]
    assert scores.tolist() == [1.0, 3.0, 1.0]


def test_a_group_that_is_too_long_as_a_whole_still_has_finite_scores():
    statuses, scores = settle(["correct"], np.array([np.nan]))
    assert (statuses, scores.tolist()) == (["context_overflow"], [0.0])


def test_a_score_that_is_not_finite_is_a_status_and_scores_lowest():
    statuses, scores = settle(["correct"] * 4, np.array([np.inf, 3.0, -np.inf, np.nan]))
    assert statuses == ["not_finite", "correct", "not_finite", "context_overflow"]
    assert scores.tolist() == [3.0] * 4


def test_a_recorded_status_outlives_its_null_score():
    """On the wire and in logs both kinds are nan or null."""
    first, _ = settle(["correct", "wrong"], np.array([np.inf, np.nan]))
    again, scores = settle(first, np.array([np.nan, np.nan]))
    assert again == first == ["not_finite", "context_overflow"] and scores.tolist() == [0.0, 0.0]


@given(st.lists(st.sampled_from([math.nan, math.inf, -math.inf, -2.0, 0.5, 7.0]), min_size=1, max_size=8))
def test_whatever_a_model_gives_every_completion_is_paid_within_its_band(scores):
    statuses, got = reward_group("hero", ["correct"] * len(scores), np.array(scores), sigma=None, options=OPTIONS)
    for score, status, reward in zip(scores, statuses, got.r_hat, strict=True):
        low, high = (0.8, 1.2) if math.isfinite(score) else (-0.1, 0.1)
        assert (status == "correct") is math.isfinite(score) and low - 1e-9 <= reward <= high + 1e-9


def test_without_scores_the_statuses_stay():
    assert settle(["timeout", "correct"], None) == (["timeout", "correct"], None)
