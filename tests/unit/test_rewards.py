"""The four reward modes against their formulas in plain Python."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.hero import difficulty_weight, stratified_rewards
from scorer.rewards import next_sigma_bar, settle, shape, spread

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
    blend_weight=0.25,
)
CORRECT = [True, False, False, True]
SCORES = [2.0, -1.0, 0.5, 3.0]


def test_hero_is_the_stratified_reward_times_the_weight():
    got = shape("hero", CORRECT, SCORES, sigma_bar=0.9, options=OPTIONS)
    mean = sum(SCORES) / 4
    sigma_u = math.sqrt(sum((s - mean) ** 2 for s in SCORES) / 4)  # ddof 0, both labels together
    assert got.sigma_u == pytest.approx(sigma_u)
    assert got.sigma_bar == 0.9
    assert got.weight == difficulty_weight(got.sigma_u, 0.9)
    assert got.r_hat.tolist() == stratified_rewards(CORRECT, SCORES, alpha=0.1, beta=0.2).tolist()
    assert got.rewards == pytest.approx([got.weight * r for r in got.r_hat])


def test_the_weighting_can_be_off():
    off = SimpleNamespace(**vars(OPTIONS) | {"weighting": "off"})
    got, weighted = (shape("hero", CORRECT, SCORES, sigma_bar=0.9, options=options) for options in (off, OPTIONS))
    assert got.weight == 1.0 and weighted.weight != 1.0
    assert got.rewards.tolist() == got.r_hat.tolist() == weighted.r_hat.tolist()


def test_the_first_group_is_weighted_at_its_own_spread():
    got = shape("hero", CORRECT, SCORES, sigma_bar=None, options=OPTIONS)
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
    got = shape(mode, CORRECT, SCORES, sigma_bar=5.0, options=OPTIONS)
    assert got.weight == 1.0
    assert got.r_hat == pytest.approx(expected)
    assert got.rewards == pytest.approx(expected)


def test_verifier_needs_no_scores():
    got = shape("verifier", CORRECT, None, sigma_bar=None, options=OPTIONS)
    assert got.rewards.tolist() == [1, 0, 0, 1]
    assert got.sigma_u is None
    assert got.sigma_bar is None


@pytest.mark.parametrize("mode", ["hero", "rm", "blend"])
def test_a_mode_without_its_scores_is_refused(mode):
    with pytest.raises(ValueError, match=f"'{mode}' needs reward-model scores"):
        shape(mode, CORRECT, None, sigma_bar=None, options=OPTIONS)


@pytest.mark.parametrize("mode", ["hero", "rm", "blend", "verifier"])
@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0, 3.0, math.nan]])
def test_bad_scores_are_refused_in_every_mode(mode, scores):
    with pytest.raises(ValueError, match="rm_scores"):
        shape(mode, CORRECT, scores, sigma_bar=None, options=OPTIONS)


def test_an_unknown_mode_and_an_empty_group_are_refused():
    with pytest.raises(ValueError, match="'best'"):
        shape("best", CORRECT, SCORES, sigma_bar=None, options=OPTIONS)
    with pytest.raises(ValueError, match="N >= 1"):
        shape("verifier", [], None, sigma_bar=None, options=OPTIONS)


@given(st.floats(-1e3, 1e3), st.integers(1, 20))
def test_equal_scores_have_no_spread_at_all(score, size):
    assert spread(np.full(size, score)) == 0.0


def test_sigma_bar_is_an_exponential_mean_that_its_first_value_starts():
    bar = None
    for sigma in (2.0, 4.0, 0.0):
        bar = next_sigma_bar(bar, sigma, momentum=0.75)
    assert bar == pytest.approx(0.75 * (0.75 * 2.0 + 0.25 * 4.0))


def test_a_completion_too_long_for_the_model_is_not_correct_and_scores_lowest():
    statuses, scores = settle(["correct", "wrong", "correct"], np.array([np.nan, 3.0, 1.0]))
    assert statuses == ["context_overflow", "wrong", "correct"]
    assert scores.tolist() == [1.0, 3.0, 1.0]


def test_a_group_that_is_too_long_as_a_whole_still_has_finite_scores():
    statuses, scores = settle(["correct"], np.array([np.nan]))
    assert (statuses, scores.tolist()) == (["context_overflow"], [0.0])


def test_without_scores_the_statuses_stay():
    assert settle(["timeout", "correct"], None) == (["timeout", "correct"], None)
