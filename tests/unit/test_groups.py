"""What may be trained on, and what becomes of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from learner.groups import Branch, Order, drop_reason, payload_bytes, sequences
from tests.make import rollout, scored, ticket

ORDER = Order(vocabulary=5, prompt_tokens=5, completion_tokens=4, temperature=1.0, mask_truncated=False)


BRANCH = Branch(incarnation=2, begun_at=4)


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ([(2, 2)], "stale"),
        ([(2, 3)], None),
        ([(2, 5)], None),
        ([(1, 3)], None),  # before this learner resumed
        ([(1, 7)], None),  # of the branch that was left, and within the bound
        ([(1, 8)], "abandoned_branch"),
        ([(1, 2)], "stale"),  # what both branches have in common
        ([(1, 4), (2, 5)], None),  # its policy changed while it was sampled
        ([(2, 2), (2, 5)], "stale"),  # one token is enough
        ([(2, 4), (1, 8)], "abandoned_branch"),
        ([(1, 8), (2, 4)], "abandoned_branch"),
        ([(1, 5), (1, 2)], "abandoned_branch"),
    ],
)
def test_every_token_of_a_group_is_within_the_staleness_bound(
    versions: list[tuple[int, int]], reason: str | None
) -> None:
    made = rollout(ticket(), tokens=len(versions))
    runs = [(1, incarnation, step) for incarnation, step in versions]
    made = dataclasses.replace(made, completions=[dataclasses.replace(made.completions[0], versions=runs)])
    assert drop_reason(scored(made), step=5, max_staleness=2, order=ORDER, branch=BRANCH) == reason


def test_a_group_of_a_left_branch_that_grew_old_says_so() -> None:
    group = scored(rollout(ticket(incarnation=1), step=5))
    assert drop_reason(group, 6, 2, ORDER, Branch(incarnation=1, begun_at=4)) is None
    assert drop_reason(group, 8, 2, ORDER, Branch(incarnation=1, begun_at=4)) == "stale"
    assert drop_reason(group, 8, 2, ORDER, Branch(incarnation=2, begun_at=4)) == "abandoned_branch"


def test_a_group_without_a_single_token_is_empty() -> None:
    assert (
        drop_reason(scored(rollout(ticket(), tokens=0)), step=0, max_staleness=1, order=ORDER, branch=Branch(1, 0))
        == "empty"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"vocabulary": 4}, "its token ids are 0 to 4, the learner's model reads 0 to 3"),
        ({"prompt_tokens": 4}, "prompt and completion have 5 and 4 tokens, at most 4 and 4 were ordered"),
        ({"completion_tokens": 3}, "prompt and completion have 5 and 4 tokens, at most 5 and 3 were ordered"),
        ({"temperature": 0.5}, "it was sampled at temperature 1, not 0.5"),
    ],
)
def test_a_group_that_nobody_ordered_is_not_trained_on(changes: dict[str, int], why: str) -> None:
    group = scored(rollout(ticket()))
    assert drop_reason(group, 0, 1, ORDER, Branch(1, 0)) is None and ORDER.misfit(group) is None
    other = dataclasses.replace(ORDER, **changes)  # type: ignore[arg-type]
    assert drop_reason(group, 0, 1, other, Branch(1, 0)) == "not_as_ordered" and other.misfit(group) == why


def test_one_sequence_per_completion_that_has_tokens() -> None:
    made = rollout(ticket(completions=3), tokens=4)
    silent = rollout(ticket(), tokens=0).completions[0]
    made = dataclasses.replace(made, completions=[made.completions[0], silent, made.completions[2]])

    groups = [scored(made), scored(rollout(ticket(), tokens=2))]
    found = sequences(groups, [np.array([1.0, 2.0, 3.0]), np.ones(2)], ORDER)

    assert [(len(s.completion_ids), s.advantage) for s in found] == [(4, 1.0), (4, 3.0), (2, 1.0), (2, 1.0)]
    assert all(len(s.prompt_ids) == 5 for s in found)


def test_what_was_cut_for_its_length_may_be_left_out_of_the_loss() -> None:
    made = rollout(ticket(), tokens=4)
    whole = made.completions[0]
    cut = dataclasses.replace(whole, finish="length")
    masking = dataclasses.replace(ORDER, mask_truncated=True)
    mixed, lost = (scored(dataclasses.replace(made, completions=rows)) for rows in ([cut, whole], [cut, cut]))
    gains = [np.array([1.0, 2.0])]

    assert [s.advantage for s in sequences([mixed], gains, ORDER)] == [1.0, 2.0]
    assert [s.advantage for s in sequences([mixed], gains, masking)] == [2.0]
    assert drop_reason(mixed, 0, 1, masking, Branch(1, 0)) is None
    assert drop_reason(lost, 0, 1, masking, Branch(1, 0)) == "all_truncated"
    assert drop_reason(lost, 0, 1, ORDER, Branch(1, 0)) is None


def test_the_payload_is_ids_logprobs_and_text() -> None:
    group = scored(rollout(ticket(completions=2), tokens=4))
    assert payload_bytes(group) == 2 * (4 * 4 + 4 * 4 + len("\\boxed{2}"))
