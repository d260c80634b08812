"""Separate channels against loops in plain Python close to the papers' formulas, and what each promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.settings import LearnerSettings
from learner.advantage import SEPARATE, Group, batch_advantages
from learner.channels import dara, gdpo, papo

EPS = 1e-6
NAN = math.nan
RULES = sorted(SEPARATE)

scores = st.integers(-30, 30).map(float)
lists = st.lists(st.tuples(st.booleans(), scores), min_size=1, max_size=8)
batches = st.lists(lists, min_size=1, max_size=6)
weights = st.floats(0.0, 3.0)


def mean(xs: list[float]) -> float:
    return math.fsum(xs) / len(xs)


def std(xs: list[float]) -> float:
    return math.sqrt(math.fsum((x - mean(xs)) ** 2 for x in xs) / (len(xs) - 1)) if len(xs) > 1 else 0.0


def z_scores(xs: list[float]) -> list[float]:
    if len(set(xs)) == 1:
        return [0.0] * len(xs)
    return [(x - mean(xs)) / (std(xs) + EPS) for x in xs]


def slow_gdpo(batch: list[list[tuple[bool, float]]], w_rule: float, w_rm: float) -> list[list[float]]:
    """r_1, r_2 -> A_1, A_2 in the group; A_sum = w_1 A_1 + w_2 A_2; whitened over the batch."""
    sums = []
    for group in batch:
        a_rule = z_scores([float(right) for right, _ in group])
        a_rm = z_scores([score for _, score in group])
        sums.append([w_rule * a + w_rm * b for a, b in zip(a_rule, a_rm, strict=True)])
    flat = [a for group in sums for a in group]
    if len(set(flat)) == 1:
        return [[0.0] * len(group) for group in sums]
    return [[(a - mean(flat)) / (std(flat) + EPS) for a in group] for group in sums]


def slow_dara(batch: list[list[tuple[bool, float]]], w_rule: float, w_rm: float, cap: float) -> list[list[float]]:
    pi_rule = mean([float(len({right for right, _ in group}) > 1) for group in batch])
    pi_rm = mean([float(len({score for _, score in group}) > 1) for group in batch])
    pi_ref = max(pi_rule, pi_rm)
    if pi_rule > 0:
        w_rule *= min(cap, math.sqrt(pi_ref / pi_rule))
    if pi_rm > 0:
        w_rm *= min(cap, math.sqrt(pi_ref / pi_rm))
    return slow_gdpo(batch, w_rule, w_rm)


def slow_papo(batch: list[list[tuple[bool, float]]], lam: float) -> list[list[float]]:
    found = []
    for group in batch:
        a_outcome = z_scores([float(right) for right, _ in group])
        among = iter(z_scores([score for right, score in group if right]) if any(r for r, _ in group) else [])
        a_process = [next(among) if right else 0.0 for right, _ in group]
        found.append([a + lam * b for a, b in zip(a_outcome, a_process, strict=True)])
    return found


def arrays(batch: list[list[tuple[bool, float]]]) -> tuple[list[Any], list[Any]]:
    return [np.array([right for right, _ in g]) for g in batch], [np.array([score for _, score in g]) for g in batch]


def as_groups(batch: list[list[tuple[bool, float]]]) -> list[Group]:
    return [
        Group(np.array([right for right, _ in g]), np.array([score for _, score in g]), np.zeros(len(g)), 1.0)
        for g in batch
    ]


def close(got: list[Any], expected: list[list[float]]) -> None:
    assert [len(g) for g in got] == [len(g) for g in expected]
    assert np.concatenate(got) == pytest.approx([a for group in expected for a in group], abs=1e-7)


def cancels(batch: list[list[tuple[bool, float]]]) -> bool:
    """Whether verdict and score cancel but for eps in every group; whitening blows up what is left."""
    sums = [
        a + b
        for group in batch
        for a, b in zip(z_scores([float(right) for right, _ in group]), z_scores([s for _, s in group]), strict=True)
    ]
    return 0 < max(map(abs, sums)) < 1e-3


@given(batches, weights, weights)
def test_gdpo_equals_the_slow_formula(batch: Any, w_rule: float, w_rm: float) -> None:
    assume(w_rule + w_rm > 0.01)
    close(gdpo(*arrays(batch), w_rule, w_rm), slow_gdpo(batch, w_rule, w_rm))


@given(batches, weights, weights, st.floats(1.0, 5.0))
def test_dara_equals_the_slow_formula(batch: Any, w_rule: float, w_rm: float, cap: float) -> None:
    assume(w_rule + w_rm > 0.01)
    close(dara(*arrays(batch), w_rule, w_rm, cap), slow_dara(batch, w_rule, w_rm, cap))


@given(batches, st.floats(0.0, 3.0))
def test_papo_equals_the_slow_formula(batch: Any, lam: float) -> None:
    close(papo(*arrays(batch), lam), slow_papo(batch, lam))


@given(batches)
def test_gdpo_is_white_over_the_batch(batch: Any) -> None:
    assume(not cancels(batch))
    flat = np.concatenate(gdpo(*arrays(batch)))
    assert flat.mean() == pytest.approx(0, abs=1e-9)
    assert not flat.any() or np.std(flat, ddof=1) == pytest.approx(1, abs=1e-2)


def test_gdpo_tells_apart_what_a_sum_does_not() -> None:
    # Right with a low score, wrong with a high one: their sums are equal, their advantages are not
    correct, scores = [np.array([True, False, False])], [np.array([0.0, 1.0, 0.0])]
    [gains] = gdpo(correct, scores, 1.0, 0.5)
    assert gains[0] > gains[1] > gains[2]


@pytest.mark.parametrize(("mixed", "factor"), [(1, 3.0), (4, 2.0), (16, 1.0)])
def test_dara_raises_the_sparser_reward_up_to_the_cap(mixed: int, factor: float) -> None:
    """Of 16 groups the scores differ in all, the verdicts in `mixed`: sqrt(16 / mixed), at most 3."""
    batch = [[(False, 1.0), (i < mixed, 2.0 + i % 3), (False, 0.5)] for i in range(16)]
    close(dara(*arrays(batch), 1.0, 1.0, 3.0), [list(g) for g in gdpo(*arrays(batch), factor, 1.0)])


def test_papo_takes_nothing_from_the_scores_of_wrong_completions() -> None:
    correct = [np.array([True, False, True, False])]
    [one], [other] = (papo(correct, [np.array([1.0, wrong, 2.0, -wrong])]) for wrong in (0.0, 99.0))
    assert one.tolist() == other.tolist() and one[1] == one[3] < 0 < one[0] < one[2]
    [uniform] = papo([np.zeros(3, bool)], [np.array([1.0, 2.0, 3.0])])
    assert not uniform.any(), "all wrong: the scores rank nobody"
    [lone] = papo([np.array([True, False])], [np.array([-5.0, 5.0])])
    assert lone == pytest.approx(z_scores([1.0, 0.0])), "one right completion has nobody to be compared with"


@given(batches, st.floats(0.1, 50), st.floats(-50, 50))
def test_the_units_of_the_scores_do_not_matter(batch: Any, scale: float, offset: float) -> None:
    assume(not cancels(batch))
    moved = [[(right, scale * score + offset) for right, score in group] for group in batch]
    for rule in (gdpo, dara, papo):
        got, expected = (np.concatenate(rule(*arrays(b))) for b in (moved, batch))
        assert got == pytest.approx(expected, abs=1e-2)


@given(batches, st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_advantages_follow_their_completions_and_groups_around(batch: Any, rule: Any, random: Any) -> None:
    """Permutation equivariance, of the completions in a group and of the groups in a batch."""
    options = LearnerSettings(advantage=rule)
    straight = batch_advantages(as_groups(batch), options)
    order = random.sample(range(len(batch)), len(batch))
    inner = [random.sample(range(len(group)), len(group)) for group in batch]
    shuffled = batch_advantages(as_groups([[batch[g][i] for i in inner[g]] for g in order]), options)
    for got, g in zip(shuffled, order, strict=True):
        assert got == pytest.approx(straight[g][inner[g]], abs=1e-9)


@given(batches, st.sampled_from(RULES))
def test_equal_completions_get_equal_advantages(batch: Any, rule: Any) -> None:
    doubled = [[*group, *group] for group in batch]
    for gains, group in zip(batch_advantages(as_groups(doubled), LearnerSettings(advantage=rule)), batch, strict=True):
        assert gains[: len(group)].tolist() == gains[len(group) :].tolist()


@pytest.mark.parametrize("rule", RULES)
def test_one_completion_or_equal_ones_teach_nothing(rule: Any) -> None:
    options = LearnerSettings(advantage=rule)
    for batch in ([[(True, 3.0)]], [[(True, 3.0)] * 4, [(False, -1.0)] * 2]):
        assert not np.concatenate(batch_advantages(as_groups(batch), options)).any()


@pytest.mark.parametrize("rule", RULES)
def test_a_completion_without_a_score_has_the_lowest(rule: Any) -> None:
    options = LearnerSettings(advantage=rule)
    correct, r_hat = np.array([True, False, True]), np.zeros(3)
    lost, lowest = (Group(correct, np.array([2.0, x, 3.0]), r_hat, 1.0) for x in (NAN, 2.0))
    assert batch_advantages([lost], options)[0].tolist() == batch_advantages([lowest], options)[0].tolist()
    none = Group(correct, np.full(3, NAN), r_hat, 1.0)
    assert np.isfinite(batch_advantages([none], options)[0]).all()


@pytest.mark.parametrize("rule", RULES)
def test_scores_at_the_ends_of_the_number_range_give_finite_advantages(rule: Any) -> None:
    group = Group(np.array([True, False, True]), np.array([1.7e308, -1.7e308, 0.0]), np.zeros(3), 1.0)
    [gains] = batch_advantages([group], LearnerSettings(advantage=rule))
    assert np.isfinite(gains).all() and gains[0] > gains[2] > gains[1]


@pytest.mark.parametrize("rule", RULES)
def test_bands_and_weight_have_no_part(rule: Any) -> None:
    correct, found = np.array([True, False]), np.array([1.0, 2.0])
    one, other = (
        batch_advantages([Group(correct, found, np.array(r_hat), weight)], LearnerSettings(advantage=rule))[0].tolist()
        for r_hat, weight in (([1.0, 0.0], 1.0), ([-7.0, 9.0], 3.0))
    )
    assert one == other


@pytest.mark.parametrize("rule", RULES)
def test_without_scores_they_are_refused(rule: Any) -> None:
    group = Group(np.array([True, False]), None, np.array([1.0, 0.0]), 1.0)
    with pytest.raises(ValueError, match=f"'{rule}' needs reward-model scores"):
        batch_advantages([group], LearnerSettings(advantage=rule))


@given(batches, st.sampled_from(RULES), st.data())
def test_silenced_groups_get_zeros_and_are_no_part_of_the_batch(batch: Any, rule: Any, data: Any) -> None:
    silenced = data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch)))
    options, groups = LearnerSettings(advantage=rule), as_groups(batch)
    got = batch_advantages(groups, options, silenced=silenced)
    alone = iter(batch_advantages([g for g, mute in zip(groups, silenced, strict=True) if not mute], options))
    for gains, mute in zip(got, silenced, strict=True):
        assert gains.tolist() == ([0.0] * len(gains) if mute else next(alone).tolist())
