"""Eq. 3 and 4 of arXiv:2510.07242 against a slow derivation, and the properties that training relies on."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scorer.hero import difficulty_weight, scale_free_weight, stratified_rewards

SCORES = st.floats(-50, 50, allow_nan=False)
BANDS = st.tuples(st.floats(0, 0.6), st.floats(0, 0.6)).filter(lambda bands: sum(bands) < 0.99)


@st.composite
def groups(draw, scores=SCORES):
    size = draw(st.integers(1, 16))
    correct = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return correct, draw(st.lists(scores, min_size=size, max_size=size))


DENSE = st.sampled_from(["both", "positives", "negatives", "none"])


def slow_rewards(correct, scores, alpha, beta, eps, lone, dense="both"):
    """Eq. 3, one completion at a time, in the paper's words."""
    rewards = []
    for i in range(len(scores)):
        same_label = [scores[j] for j in range(len(scores)) if correct[j] == correct[i]]
        low, high = min(same_label), max(same_label)
        if dense not in ("both", "positives" if correct[i] else "negatives"):
            rewards.append(1.0 if correct[i] else 0.0)
            continue
        z = (scores[i] - low) / (high - low + eps)
        if low == high and lone == "center":
            z = 0.5
        if correct[i]:
            rewards.append((1 - beta) + 2 * beta * z)
        else:
            rewards.append(-alpha + 2 * alpha * z)
    return rewards


@given(groups(), BANDS, st.sampled_from(["floor", "center"]), DENSE)
def test_rewards_equal_the_slow_derivation(group, bands, lone, dense):
    correct, scores = group
    got = stratified_rewards(correct, scores, alpha=bands[0], beta=bands[1], lone=lone, dense=dense)
    assert got.dtype == np.float64
    assert got == pytest.approx(slow_rewards(correct, scores, *bands, 1e-6, lone, dense), abs=1e-12)


def test_only_what_is_dense_leaves_0_and_1():
    correct, scores = [0, 0, 1, 1], [1.0, 2.0, 3.0, 4.0]
    for dense, expected in (
        ("both", [-0.1, 0.1, 0.9, 1.1]),
        ("positives", [0, 0, 0.9, 1.1]),
        ("negatives", [-0.1, 0.1, 1, 1]),
        ("none", [0, 0, 1, 1]),
    ):
        got = stratified_rewards(correct, scores, alpha=0.1, beta=0.1, eps=0.0, dense=dense)
        assert got == pytest.approx(expected), dense
    with pytest.raises(ValueError, match="dense = 'some'"):
        stratified_rewards(correct, scores, alpha=0.1, beta=0.1, dense="some")


def test_a_group_by_hand():
    # Given two wrong and three correct completions
    correct, scores = [0, 1, 1, 0, 1], [-1.0, 2.0, 6.0, 3.0, 4.0]
    # Then each label fills its own band: 0 -> [-.1, .1], 1 -> [.8, 1.2]
    got = stratified_rewards(correct, scores, alpha=0.1, beta=0.2, eps=0.0)
    assert got == pytest.approx([-0.1, 0.8, 1.2, 0.1, 1.0])


@given(groups(st.floats(allow_nan=False, allow_infinity=False)), BANDS, st.sampled_from(["floor", "center"]))
def test_every_reward_lies_in_its_band_and_correct_lies_above_wrong(group, bands, lone):
    correct, scores = group
    alpha, beta = bands
    got = stratified_rewards(correct, scores, alpha=alpha, beta=beta, lone=lone)
    for right, reward in zip(correct, got, strict=True):
        low, high = (1 - beta, 1 + beta) if right else (-alpha, alpha)
        assert low - 1e-12 <= reward <= high + 1e-12
    if any(correct) and not all(correct):
        right = np.array(correct)
        assert got[right].min() > got[~right].max()


def test_scores_at_the_ends_of_the_number_range_still_have_their_order():
    got = stratified_rewards([1, 1, 1], [-1.7e308, 0.0, 1.7e308], alpha=0.1, beta=0.1)
    assert got == pytest.approx([0.9, 1.0, 1.1])


@given(groups(), st.randoms(use_true_random=False))
def test_the_order_of_completions_does_not_matter(group, random):
    correct, scores = group
    order = list(range(len(scores)))
    random.shuffle(order)
    straight = stratified_rewards(correct, scores, alpha=0.1, beta=0.1)
    shuffled = stratified_rewards([correct[i] for i in order], [scores[i] for i in order], alpha=0.1, beta=0.1)
    assert shuffled.tolist() == straight[order].tolist()


@given(groups(), st.floats(0.5, 20), st.floats(-100, 100))
def test_scale_and_offset_of_the_scores_do_not_matter_up_to_eps(group, scale, offset):
    correct, scores = group
    spreads = [
        max(part) - min(part)
        for label in (True, False)
        if (part := [s for s, c in zip(scores, correct, strict=True) if c is label])
    ]
    # eps is visible where a stratum's spread is as small as eps itself
    assume(all(spread == 0 or spread > 0.01 for spread in spreads))
    moved = [scale * score + offset for score in scores]
    for lone in ("floor", "center"):
        before = stratified_rewards(correct, scores, alpha=0.1, beta=0.1, lone=lone)
        after = stratified_rewards(correct, moved, alpha=0.1, beta=0.1, lone=lone)
        assert after == pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize(("lone", "expected"), [("floor", [-0.1, 0.8]), ("center", [0.0, 1.0])])
def test_a_lone_member_and_a_tied_stratum_go_to_the_floor_or_the_center(lone, expected):
    wrong, right = expected
    alone = stratified_rewards([False, True], [3.0, -3.0], alpha=0.1, beta=0.2, lone=lone)
    tied = stratified_rewards([False, True, False, True], [3.0, 5.0, 3.0, 5.0], alpha=0.1, beta=0.2, lone=lone)
    assert alone == pytest.approx([wrong, right])
    assert tied == pytest.approx([wrong, right, wrong, right])


@pytest.mark.parametrize("correct", [True, False])
def test_one_completion(correct):
    assert stratified_rewards([correct], [7.0], alpha=0.1, beta=0.1) == pytest.approx([0.9 if correct else -0.1])


def test_equal_scores_of_one_label_get_equal_rewards():
    got = stratified_rewards([1, 1, 1], [2.0, 5.0, 2.0], alpha=0.1, beta=0.1)
    assert got[0] == got[2] < got[1]


@pytest.mark.parametrize(
    ("correct", "scores", "options", "message"),
    [
        ([], [], {}, "empty"),
        ([True], [1.0, 2.0], {}, r"\(1,\).*\(2,\)"),
        ([[True]], [[1.0]], {}, r"\[N\]"),
        ([True, False], [1.0, math.nan], {}, "nan"),
        ([True, False], [1.0, math.inf], {}, "inf"),
        ([2, 0], [1.0, 2.0], {}, r"\[2, 0\]"),
        ([True], [1.0], {"alpha": 0.5, "beta": 0.5}, "alpha = 0.5, beta = 0.5"),
        ([True], [1.0], {"alpha": -0.1}, "alpha = -0.1"),
        ([True], [1.0], {"alpha": math.nan}, "alpha = nan"),
        ([True], [1.0], {"eps": -1.0}, "eps = -1.0"),
        ([True], [1.0], {"lone": "top"}, "'top'"),
    ],
)
def test_what_cannot_be_rewarded_is_refused_with_its_values(correct, scores, options, message):
    with pytest.raises(ValueError, match=message):
        stratified_rewards(correct, scores, **({"alpha": 0.1, "beta": 0.1} | options))


@given(st.floats(0, 20), st.floats(0, 20), st.floats(-6, 6))
def test_weight_equals_the_formula_as_written(sigma_u, sigma_bar, k):
    slow = 0.4 + (3.0 - 0.4) / (1 + math.exp(-k * (sigma_u - sigma_bar)))
    assert difficulty_weight(sigma_u, sigma_bar, k=k) == pytest.approx(slow, rel=1e-12)


@given(st.floats(0, 1e308), st.floats(0, 1e308), st.floats(0, 1e6))
def test_weight_stays_in_its_range_for_any_difference(sigma_u, sigma_bar, k):
    assert 0.4 <= difficulty_weight(sigma_u, sigma_bar, k=k) <= 3.0


def test_weight_of_an_average_prompt_is_the_middle_and_it_grows_with_the_spread():
    assert difficulty_weight(0.7, 0.7, w_min=1.0, w_max=2.0) == 1.5
    weights = [difficulty_weight(sigma / 10, 1.0) for sigma in range(30)]
    assert weights == sorted(weights)
    # The figures of a nearly hard gate: one unit below and above the mean
    assert difficulty_weight(0.0, 1.0) == pytest.approx(0.406, abs=1e-3)
    assert difficulty_weight(2.0, 1.0) == pytest.approx(2.994, abs=1e-3)


@pytest.mark.parametrize("values", [(math.nan, 0.0), (0.0, math.inf), (-1.0, 0.0), (0.0, -1.0)])
def test_weight_refuses_what_is_no_deviation(values):
    with pytest.raises(ValueError, match="sigma_u"):
        difficulty_weight(*values)


def test_weight_refuses_a_range_upside_down():
    with pytest.raises(ValueError, match="w_min"):
        difficulty_weight(0.0, 0.0, w_min=2.0, w_max=1.0)


@given(st.floats(0, 20), st.floats(0, 20), st.floats(0.01, 5), st.floats(-6, 6))
def test_scale_free_weight_equals_the_formula_as_written(sigma_u, sigma_bar, sigma_dev, k_z):
    z = (sigma_u - sigma_bar) / (sigma_dev + 1e-6)
    assume(abs(k_z * z) < 700)
    slow = 0.4 + (3.0 - 0.4) / (1 + math.exp(-k_z * z))
    assert scale_free_weight(sigma_u, sigma_bar, sigma_dev, k_z=k_z) == pytest.approx(slow, rel=1e-12)


@given(st.floats(0, 1e308), st.floats(0, 1e308), st.floats(0, 1e308))
def test_scale_free_weight_stays_in_its_range(sigma_u, sigma_bar, sigma_dev):
    assert 0.4 <= scale_free_weight(sigma_u, sigma_bar, sigma_dev) <= 3.0


def test_without_any_deviation_every_prompt_has_the_middle_weight():
    assert scale_free_weight(0.0, 5.0, 0.0) == scale_free_weight(9.0, 5.0, 0.0) == pytest.approx(1.7)
    assert scale_free_weight(9.0, 5.0, 5e-16) == pytest.approx(1.7), "nor by what is a rounding"


def test_scale_free_weights_of_normal_spreads_are_about_even():
    """Why k_z is 1.7: one tenth of the prompts in every tenth of the range, within 0.01."""
    quantiles = [NormalDist(5, 0.3).inv_cdf((i + 0.5) / 1000) for i in range(1000)]
    places = [(scale_free_weight(sigma_u, 5, 0.3) - 0.4) / 2.6 for sigma_u in quantiles]
    assert max(abs(place - (i + 0.5) / 1000) for i, place in enumerate(places)) < 0.01


@pytest.mark.parametrize("values", [(math.nan, 0.0, 1.0), (0.0, math.inf, 1.0), (0.0, 0.0, -1.0), (0.0, 0.0, math.nan)])
def test_scale_free_weight_refuses_what_is_no_deviation(values):
    with pytest.raises(ValueError, match="sigma_dev"):
        scale_free_weight(*values)


@given(groups(), BANDS, st.floats(0.1, 3.0))
def test_with_any_weight_every_correct_completion_is_paid_more_than_every_wrong_one(group, bands, weight):
    correct, scores = group
    assume(any(correct) and not all(correct))
    paid = weight * stratified_rewards(correct, scores, alpha=bands[0], beta=bands[1])
    right = np.array(correct)
    assert paid[right].min() > paid[~right].max()


def test_without_bands_what_is_left_is_the_verdict():
    got = stratified_rewards([0, 1, 0, 1], [4.0, 1.0, 2.0, 3.0], alpha=0.0, beta=0.0)
    assert got.tolist() == [0.0, 1.0, 0.0, 1.0]
