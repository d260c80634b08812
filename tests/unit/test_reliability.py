"""The reward model's AUROC inside mixed groups, its running mean, and the gate on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.advantage import Group
from learner.reliability import MOMENTUM, Gate, in_group_auroc

NAN = math.nan
members = st.lists(st.tuples(st.booleans(), st.sampled_from([NAN, -1.0, 0.0, 0.5, 2.0])), min_size=1, max_size=6)


def group(*members: tuple[bool, float]) -> Group:
    correct, scores = np.array([right for right, _ in members]), np.array([score for _, score in members])
    return Group(correct, scores, np.zeros(len(members)), 1.0)


def slow(batch: list[list[tuple[bool, float]]]) -> float | None:
    """Every pair of a right and a wrong completion of a group, then the mean over the groups that have one."""
    found = []
    for each in batch:
        pairs = [(a, b) for right, a in each if right for wrong, b in each if not wrong]
        pairs = [(a, b) for a, b in pairs if not math.isnan(a) and not math.isnan(b)]
        if pairs:
            found.append(sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs))
    return sum(found) / len(found) if found else None


@given(st.lists(members, min_size=1, max_size=6))
def test_it_equals_counting_pairs(batch: Any) -> None:
    got = in_group_auroc([group(*each) for each in batch])
    assert got == (None if (expected := slow(batch)) is None else pytest.approx(expected))


GOOD = group((True, 1.0), (False, 0.0))
BAD = group((True, 0.0), (False, 1.0))
WRONG = group((False, 1.0), (False, 0.0))
RIGHT = group((True, 1.0), (True, 0.0))


def test_uniform_groups_are_silent_while_the_mean_is_below_the_least() -> None:
    gate = Gate(0.6)
    assert gate.silenced([WRONG, RIGHT]) == [False, False] and gate.mean is None, "nothing is known: the paper's method"
    assert gate.silenced([GOOD, BAD, WRONG]) == [False, False, True] and gate.mean == 0.5
    assert gate.silenced([WRONG, RIGHT]) == [True, True] and gate.mean == 0.5, "no mixed group: it stays"
    for _ in range(3):
        gate.silenced([GOOD])
    assert gate.mean == pytest.approx(1 - 0.5 * MOMENTUM**3)
    assert gate.silenced([WRONG, GOOD]) == [False, False]


@given(st.lists(st.lists(members, min_size=1, max_size=4), max_size=6))
def test_off_it_silences_nobody_and_still_knows(batches: Any) -> None:
    gate, mean = Gate(0.0), None
    for batch in batches:
        assert not any(gate.silenced([group(*each) for each in batch]))
        found = slow(batch)
        if found is not None:
            mean = found if mean is None else MOMENTUM * mean + (1 - MOMENTUM) * found
    assert gate.mean == (None if mean is None else pytest.approx(mean))


@given(st.lists(st.lists(members, min_size=1, max_size=4), min_size=1, max_size=8), st.integers(0, 8))
def test_it_goes_on_from_its_mean_bit_for_bit(batches: Any, at: int) -> None:
    made = [[group(*each) for each in batch] for batch in batches]
    whole, first = Gate(0.5), Gate(0.5)
    told = [whole.silenced(batch) for batch in made]
    again = [first.silenced(batch) for batch in made[:at]]
    second = Gate(0.5, first.mean)
    assert again + [second.silenced(batch) for batch in made[at:]] == told and second.mean == whole.mean


def test_a_mode_without_scores_knows_nothing() -> None:
    gate = Gate(0.9)
    assert gate.silenced([Group(np.array([True, False]), None, np.array([1.0, 0.0]), 1.0)]) == [False]
    assert gate.mean is None
