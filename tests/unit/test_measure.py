"""What a reward model is worth, re-derived the slow way; and which labelled completions are taken."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from common.problems import MAX_LINE_BYTES
from scorer.reward_models.labelled import Fields, LabelledGroup, read, subset
from scorer.reward_models.measure import BINS, measure


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@given(st.lists(st.tuples(st.booleans(), st.floats(-5, 5), st.integers(0, 4)), min_size=1, max_size=60))
def test_the_calibration_error_is_the_mean_distance_of_said_and_true(rows) -> None:
    labels, scores, prompts = (np.array(column) for column in zip(*rows, strict=True))
    found = measure(labels, scores, prompts, "logistic")
    # Sorted, in BINS parts of as many each, the first ones one larger where it does not come out even
    ordered = sorted(range(len(rows)), key=lambda i: 0.5 * (1 + math.tanh(scores[i] / 2)))
    size, rest = divmod(len(rows), BINS)
    start, error = 0, 0.0
    for number in range(BINS):
        part = ordered[start : start + size + (number < rest)]
        start += len(part)
        if part:
            said = sum(sigmoid(scores[i]) for i in part) / len(part)
            error += abs(said - sum(bool(labels[i]) for i in part) / len(part)) * len(part) / len(rows)
    assert found.calibration_error == pytest.approx(error, abs=1e-9)
    assert sum(count for _, _, count in found.bins) == len(rows)


def test_bradley_terry_is_calibrated_on_pairs_of_one_prompt() -> None:
    """The height of a prompt's scores says nothing there, their differences do."""
    dice = np.random.default_rng(0)
    labels, scores, prompts = [], [], []
    for prompt in range(4000):
        margin = dice.normal()
        first_is_right = dice.random() < sigmoid(margin)
        labels += [first_is_right, not first_is_right]
        scores += [prompt + margin, float(prompt)]
        prompts += [prompt, prompt]
    found = measure(np.array(labels), np.array(scores), np.array(prompts), "bradley_terry")
    assert found.calibration_error < 0.02
    assert measure(np.array(labels), 5 * np.array(scores), np.array(prompts), "bradley_terry").calibration_error > 0.1
    low, high = found.auroc_within_interval95
    assert low < found.auroc_within < high < low + 0.05


def test_the_interval_is_over_prompts_not_over_completions() -> None:
    """A hundred copies of every completion are no more evidence."""
    dice = np.random.default_rng(1)
    labels, scores = dice.random(40) < 0.5, dice.normal(size=40)
    once = measure(labels, scores, np.arange(40), "logistic").auroc_interval95
    copied = measure(np.repeat(labels, 100), np.repeat(scores, 100), np.repeat(np.arange(40), 100), "logistic")
    assert copied.auroc_interval95 == pytest.approx(once)


def test_what_the_data_cannot_say_is_null() -> None:
    one = measure(np.array([True]), np.array([0.0]), np.array([0]), "bradley_terry").json()
    assert one["auroc"] is one["auroc_within"] is one["calibration_error"] is None
    assert one["auroc_interval95"] == [None, None]
    assert json.loads(json.dumps(one, allow_nan=False))["completions"] == 1
    assert measure(np.array([], dtype=bool), np.array([]), np.array([], dtype=int), "logistic").json()["right"] is None


GROUPS = [
    LabelledGroup("only right", ["a", "b", "c"], [True] * 3),
    LabelledGroup("mixed", list("abcdef"), [True, False, False, False, False, False]),
    LabelledGroup("even", list("abcd"), [True, True, False, False]),
]


def test_problems_with_both_labels_go_first_and_either_label_has_its_half() -> None:
    assert {group.question for group in subset(GROUPS, 2, 4, seed=0)} == {"mixed", "even"}
    labels = {group.question: sorted(group.labels) for group in subset(GROUPS, 3, 4, seed=0)}
    assert labels["even"] == [False, False, True, True]
    assert labels["mixed"] == [False, False, False, True], "as many right ones as there are"
    assert labels["only right"] == [True] * 3
    assert subset(GROUPS, 3, 2, seed=0) == subset(GROUPS, 3, 2, seed=0) != subset(GROUPS, 3, 2, seed=1)


def test_rows_are_read_by_question_and_nothing_hostile_gets_through(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    good = {"question": "1+1?", "response": "2", "ok": True, "gold": 2}
    changes = {"ok": 1}, {"response": None}, {"question": ["x"]}, {"response": "x" * MAX_LINE_BYTES}
    bad = [good | change for change in changes]
    lines = [good, {**good, "response": "3", "ok": False}, *bad]
    file.write_text("\n".join(map(json.dumps, lines)))
    fields = Fields(completion="response", label="ok", gold="gold")
    groups, left_out = read(file, fields)
    assert groups == [LabelledGroup("1+1?", ["2", "3"], [True, False], "2")]
    assert [line.number for line in left_out] == [3, 4, 5, 6]
    assert read(file, fields, most=1)[0] == [LabelledGroup("1+1?", ["2"], [True], "2")]
    with pytest.raises(DataError, match=r"rm\.correct_field"):
        read(file, Fields())
