"""Accuracy from samples, against the slow way: subsets, signs and roots one by one; coverage by simulation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import accuracy
from common.accuracy import Estimate


@pytest.mark.parametrize("samples", range(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(samples: int) -> None:
    for right in range(samples + 1):
        outcomes = [True] * right + [False] * (samples - right)
        for k in range(1, samples + 1):
            subsets = list(itertools.combinations(outcomes, k))
            expected = sum(any(subset) for subset in subsets) / len(subsets)
            assert accuracy.pass_at_k(samples, right, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_exact_where_binomials_overflow() -> None:
    n, c, k = 4000, 7, 1000
    expected = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert accuracy.pass_at_k(n, c, k) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(("samples", "right", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_of_what_cannot_be(samples: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} of {samples} samples"):
        accuracy.pass_at_k(samples, right, k)


@given(st.integers(0, 4), st.lists(st.integers(1, 4), max_size=4))
def test_the_majority_by_drawing_one_of_the_most_frequent(right: int, wrong: list[int]) -> None:
    votes = ["right"] * right + [f"wrong {i}" for i, times in enumerate(wrong) for _ in range(times)]
    most = max((votes.count(answer) for answer in votes), default=0)
    drawn = sorted({answer for answer in votes if votes.count(answer) == most})
    expected = sum(answer == "right" for answer in drawn) / len(drawn) if drawn else 0.0
    assert accuracy.majority(right, wrong) == expected


def wilson(p: float, n: float) -> tuple[float, float]:
    """The two pi with |p - pi| = z sqrt(pi (1 - pi) / n), by halving."""

    def root(outside: float) -> float:
        inside = p
        for _ in range(200):
            pi = (inside + outside) / 2
            if abs(p - pi) > accuracy.Z95 * math.sqrt(pi * (1 - pi) / n):
                outside = pi
            else:
                inside = pi
        return inside

    return root(0.0), root(1.0)


@pytest.mark.parametrize(("right", "problems"), [(0, 40), (1, 40), (10, 20), (678, 1500), (40, 40), (1, 1)])
def test_single_samples_have_wilsons_interval(right: int, problems: int) -> None:
    found = accuracy.mean([1.0] * right + [0.0] * (problems - right), 1)
    assert found.value == right / problems
    assert (found.low, found.high) == pytest.approx(wilson(right / problems, problems), abs=1e-9)


def test_several_samples_count_as_far_as_they_are_independent() -> None:
    values = [0.25, 0.5, 0.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    m, p = len(values), sum(values) / len(values)
    variance = sum((value - p) ** 2 for value in values) / m / m
    found = accuracy.mean(values, samples=4)
    assert (found.low, found.high) == pytest.approx(wilson(p, p * (1 - p) / variance), abs=1e-9)
    # Samples that agree within each problem are worth one; equal shares in all problems as many as there are.
    alike = accuracy.mean([1.0, 0.0, 1.0, 1.0], samples=8)
    assert (alike.low, alike.high) == pytest.approx(wilson(0.75, 4), abs=1e-9)
    even = accuracy.mean([0.5] * 5, samples=8)
    assert (even.low, even.high) == pytest.approx(wilson(0.5, 40), abs=1e-9)


def test_no_problem_has_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no problem"):
        accuracy.mean([], 1)


@pytest.mark.parametrize(("problems", "samples"), [(50, 1), (50, 8), (400, 8)])
def test_the_interval_covers_the_truth_as_often_as_it_says(problems: int, samples: int) -> None:
    # Given problems of very different difficulty, drawn anew each time
    generator = np.random.default_rng(0)
    truth, times, covered, naive = 0.3 / (0.3 + 0.6), 1000, 0, 0
    for _ in range(times):
        chance = generator.beta(0.3, 0.6, problems)
        shares = generator.binomial(samples, chance) / samples
        found = accuracy.mean(shares, samples)
        covered += found.low <= truth <= found.high
        low, high = wilson_closed(float(shares.mean()), problems * samples)
        naive += low <= truth <= high
    # Then 95 % of the intervals hold the mean over all problems
    assert 0.92 <= covered / times <= 0.975
    # And where problems have several samples, an interval that takes these for independent does not
    assert samples == 1 or naive / times < 0.8


def wilson_closed(p: float, n: float) -> tuple[float, float]:
    middle, half = p + 1.9208 / n, 1.96 * math.sqrt(p * (1 - p) / n + 0.9604 / n**2)
    return (middle - half) / (1 + 3.8416 / n), (middle + half) / (1 + 3.8416 / n)


def test_the_mean_of_sets() -> None:
    parts = [Estimate(0.5, 0.4, 0.7), Estimate(0.1, 0.1, 0.3)]
    found = accuracy.macro(parts)
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - math.sqrt((0.1 / 2) ** 2 + 0.0**2))
    assert found.high == pytest.approx(0.3 + math.sqrt((0.2 / 2) ** 2 + (0.2 / 2) ** 2))
    alone = accuracy.macro(parts[:1])
    assert (alone.value, alone.low, alone.high) == pytest.approx((0.5, 0.4, 0.7))


def test_a_difference_is_that_of_the_means_and_turns_its_sign_with_them() -> None:
    a, b = [1.0, 0.0, 0.5, 1.0, 0.0, 0.25], [1.0, 0.5, 0.5, 1.0, 0.25, 0.75]
    there, back = accuracy.difference(a, b, (4, 4)), accuracy.difference(b, a, (4, 4))
    assert there.value == pytest.approx(sum(b) / 6 - sum(a) / 6)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_newcombes_interval_by_hand() -> None:
    # Given 40 problems: both right on 10, only the first on 2, only the second on 9, none on 19
    a = [1.0] * 10 + [1.0] * 2 + [0.0] * 9 + [0.0] * 19
    b = [1.0] * 10 + [0.0] * 2 + [1.0] * 9 + [0.0] * 19
    (low_a, high_a), (low_b, high_b) = wilson(12 / 40, 40), wilson(19 / 40, 40)
    phi = (10 * 19 - 2 * 9) / math.sqrt(12 * 28 * 19 * 21)
    up, down = 19 / 40 - low_b, high_a - 12 / 40
    up_b, down_a = high_b - 19 / 40, 12 / 40 - low_a
    found = accuracy.difference(a, b, (1, 1))
    assert found.value == pytest.approx(7 / 40)
    assert found.low == pytest.approx(7 / 40 - math.sqrt(up**2 + down**2 - 2 * phi * up * down))
    assert found.high == pytest.approx(7 / 40 + math.sqrt(up_b**2 + down_a**2 - 2 * phi * up_b * down_a))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_the_sign_flip_test_over_every_choice_of_signs(steps: list[int]) -> None:
    sums = [
        sum(sign * step for sign, step in zip(signs, steps, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(steps))
    ]
    chances, offset = accuracy.sign_flips(steps)
    for value in range(-offset, offset + 1):
        assert chances[value + offset] == pytest.approx(sums.count(value) / len(sums), abs=1e-12)
    expected = sum(abs(value) >= abs(sum(steps)) for value in sums) / len(sums)
    assert accuracy.paired_p(steps) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("lost", "won", "equal"), [(0, 0, 5), (3, 3, 0), (2, 9, 19), (60, 25, 415)])
def test_on_single_samples_it_is_mcnemars_exact_test(lost: int, won: int, equal: int) -> None:
    n = lost + won
    tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(min(lost, won) + 1))
    expected = min(1.0, float(2 * tail))
    assert accuracy.paired_p([-1] * lost + [1] * won + [0] * equal) == pytest.approx(expected, abs=1e-10)


def test_two_equal_models_differ_by_chance_as_rarely_as_the_test_says() -> None:
    generator = np.random.default_rng(1)
    times, rejected, held = 1000, 0, 0
    for _ in range(times):
        chance = generator.beta(0.3, 0.6, 60)
        a, b = generator.binomial(4, chance), generator.binomial(4, chance)
        rejected += accuracy.paired_p(b - a) < 0.05
        found = accuracy.difference(a / 4, b / 4, (4, 4))
        held += found.low <= 0 <= found.high
    assert 0.02 <= rejected / times <= 0.06
    assert 0.92 <= held / times <= 0.975


def test_several_sets_together_by_every_choice_of_signs() -> None:
    steps, units = [[1, 1, -1, 2], [3, 1, 0]], [1 / 8, 1 / 6]
    found = abs(sum(unit * sum(own) for own, unit in zip(steps, units, strict=True)))
    hits = total = 0
    for signs in itertools.product((-1, 1), repeat=7):
        first = sum(sign * step for sign, step in zip(signs[:4], steps[0], strict=True))
        second = sum(sign * step for sign, step in zip(signs[4:], steps[1], strict=True))
        hits += abs(units[0] * first + units[1] * second) >= found - 1e-12
        total += 1
    assert accuracy.macro_p(steps, units) == pytest.approx(hits / total, abs=0.006)
    assert accuracy.macro_p(steps, units) == accuracy.macro_p(steps, units)
    assert accuracy.macro_p([[0], [0, 0]], [1.0, 0.5]) == 1.0
