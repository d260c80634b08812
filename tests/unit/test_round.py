"""One round of evaluation: its figure by the slow way, and when a round begins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import accuracy
from common.schema import Completion, Scored
from learner.round import Answer, Round, is_due
from tests import make


def group(*completions: tuple[str, str, list[tuple[int, int]]], step: int = 3) -> Scored:
    """Of (status, finish, [(tokens, step)]) for each completion."""
    rows = [
        Completion("x", np.zeros(n, np.int32), np.zeros(n, np.float32), [(t, 1, s) for t, s in runs], finish, 0.1)
        for _, finish, runs in completions
        for n in [sum(t for t, _ in runs)]
    ]
    ticket = make.ticket(lane="eval", completions=len(rows), step=step)
    made = dataclasses.replace(make.rollout(ticket), completions=rows)
    return dataclasses.replace(make.scored(made), statuses=[status for status, _, _ in completions])


def test_an_answer_says_what_its_samples_came_to() -> None:
    found = Answer.of(
        group(
            ("correct", "stop", [(4, 5)]),
            ("wrong", "length", [(2, 5), (6, 7)]),
            ("timeout", "stop", [(1, 6)]),
            ("correct", "length", [(3, 6)]),
        )
    )
    assert found == Answer(correct=2, truncated=2, oldest_step=5, newest_step=7)
    assert Answer.of(group(("no_answer", "stop", []))) == Answer(0, 0, 3, 3), "no token: the ticket's step"


ANSWERS = st.builds(Answer, st.integers(0, 4), st.integers(0, 4), st.integers(0, 9), st.integers(10, 20))


@given(
    st.lists(st.lists(st.none() | ANSWERS, min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(0, 1000),
)
def test_a_figure_by_the_slow_way(sets: list[list[Answer | None]], first: int) -> None:
    samples, id, answers, means = 4, first, {}, []
    for found in sets:
        shares = []
        for answer in found:
            if answer is not None:
                answers[id] = answer
                shares.append(answer.correct / samples)
            id += 1
        if shares:
            means.append(sum(shares) / len(shares))
    sizes = {f"set-{n}": len(found) for n, found in enumerate(sets)}

    figure = Round(step=7, first=first, began=100.0, answers=answers).figure(sizes, samples, now=130.0)

    if not means:
        assert figure is None
        return
    assert figure is not None
    assert figure.accuracy == pytest.approx(sum(means) / len(means)) and figure.low <= figure.accuracy <= figure.high
    for name, found in zip(sizes, sets, strict=True):
        shares = [answer.correct / samples for answer in found if answer is not None]
        if not shares:
            assert name not in figure.sets
            continue
        mean = accuracy.mean(shares, samples)
        assert figure.sets[name] == {
            "accuracy": mean.value, "low": mean.low, "high": mean.high, "problems": len(shares),
        }  # fmt: skip
    assert figure.problems == len(answers) and figure.problems + figure.given_up == sum(sizes.values())
    assert figure.truncated_share == pytest.approx(sum(a.truncated for a in answers.values()) / (4 * len(answers)))
    assert figure.oldest_step == min(a.oldest_step for a in answers.values())
    assert figure.newest_step == max(a.newest_step for a in answers.values())
    assert (figure.step, figure.samples, figure.seconds) == (7, samples, 30.0)


def test_rounds_are_due_at_the_first_step_every_so_many_and_the_last() -> None:
    met, due = None, []
    for step in range(12):
        for _ in range(3):  # the learner asks more often than it trains
            if is_due(step, last_step=11, every_steps=4, met=met):
                due.append(step)
                met = step
    assert due == [0, 4, 8, 11]
    assert not any(is_due(step, 11, 0, None) for step in range(12)), "0 is off"
    assert not is_due(8, 11, 4, met=8), "a learner that resumes there"
