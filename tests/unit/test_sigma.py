"""The shared running mean and deviation of sigma_u, and how far the order of groups may move it."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.sigma import Sigma, next_sigma

spreads = st.lists(st.floats(0, 50), min_size=1, max_size=20)
momenta = st.floats(0.5, 0.999)


def final(values, momentum, sigma=None):
    for value in values:
        sigma = next_sigma(sigma, value, momentum)
    return sigma


@given(spreads, momenta)
def test_mean_and_deviation_are_those_of_exponential_weights(values, momentum):
    """One weight for each group, that of the first what all later ones left; the deviation is taken around the mean."""
    weights = [momentum ** (len(values) - 1)] + [
        (1 - momentum) * momentum ** (len(values) - 1 - i) for i in range(1, len(values))
    ]
    assert math.fsum(weights) == pytest.approx(1)
    mean = math.fsum(w * x for w, x in zip(weights, values, strict=True))
    variance = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, values, strict=True))
    got = final(values, momentum)
    assert got.bar == pytest.approx(mean, abs=1e-9)
    assert got.dev**2 == pytest.approx(variance, abs=1e-6)


def test_by_hand():
    assert next_sigma(None, 2.0, 0.75) == Sigma(2.0, 0.0)
    second = next_sigma(Sigma(2.0), 4.0, 0.75)
    assert second.bar == pytest.approx(0.75 * 2 + 0.25 * 4)
    assert second.dev == pytest.approx(math.sqrt(0.75 * 0.25 * 4))
    assert next_sigma(second, None, 0.75) is second, "a group without scores moves nothing"


@given(st.floats(0, 1e6), st.integers(1, 30), momenta)
def test_equal_spreads_have_no_deviation(value, count, momentum):
    assert final([value] * count, momentum).dev <= 1e-9 * max(value, 1.0)


@given(spreads, momenta, st.floats(0.01, 100))
def test_both_are_in_the_units_of_the_scores(values, momentum, scale):
    one, other = final(values, momentum), final([scale * value for value in values], momentum)
    assert (other.bar, other.dev) == (
        pytest.approx(scale * one.bar, abs=1e-6),
        pytest.approx(scale * one.dev, rel=1e-6, abs=1e-5),
    )


@given(st.floats(0, 1e300), st.floats(0, 1e300))
def test_what_is_written_reads_the_same(bar, dev):
    assert Sigma.read(Sigma(bar, dev).written().encode()) == Sigma(bar, dev)


@pytest.mark.parametrize("raw", b",0.5,a b,nan 0,0 nan,-1 0,0 -1,inf 0,0 1e999,1 2 3".split(b","))
def test_what_is_none_is_not_read(raw):
    assert Sigma.read(raw) is None


def bound(count, momentum, width):
    return width * (1 - momentum ** (count // 2)) * (1 - momentum ** (count - count // 2))


@given(st.lists(st.floats(3, 8), min_size=1, max_size=24), momenta, st.randoms(use_true_random=False))
def test_two_orders_of_the_same_groups_end_within_the_bound(values, momentum, random):
    other = random.sample(values, len(values))
    start = Sigma(1.0)
    apart = abs(final(values, momentum, start).bar - final(other, momentum, start).bar)
    assert apart <= bound(len(values), momentum, 5.0) + 1e-12
    sorted_apart = final(sorted(values), momentum, start).bar - final(sorted(values, reverse=True), momentum, start).bar
    assert apart <= sorted_apart + 1e-12, "the largest last, or first, is the worst"


@given(st.integers(1, 12), momenta)
def test_the_bound_is_met(half, momentum):
    values = [0.0] * half + [1.0] * half
    apart = final(values, momentum, Sigma(0.3)).bar - final(values[::-1], momentum, Sigma(0.3)).bar
    assert apart == pytest.approx(bound(2 * half, momentum, 1.0))


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=1, max_size=15),
    momenta,
    st.randoms(use_true_random=False),
)
def test_orders_that_differ_within_windows_stay_within_theirs(windows, momentum, random):
    other = [random.sample(window, len(window)) for window in windows]
    ours, theirs = (final(itertools.chain(*order), momentum, Sigma(0.5)).bar for order in (windows, other))
    half = momentum**3
    assert abs(ours - theirs) <= (1 - half) / (1 + half) + 1e-12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 12), momenta)
def test_a_scorer_that_missed_the_last_groups_is_off_by_no_more_than_they_weigh(values, missed, momentum):
    seen = values[: max(0, len(values) - missed)]
    apart = abs(final(values, momentum, Sigma(0.5)).bar - final(seen, momentum, Sigma(0.5)).bar)
    assert apart <= 1 - momentum**missed + 1e-12
