"""Completions become groups: whole, in order, with exact versions."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from actors.engine import Sampled
from actors.rollout import STEPS_PER_INCARNATION, Groups, completion_of, version_key
from common.deliveries import Delivery
from common.schema import pack, unpack
from tests import make


def sampled(entry: str, index: int, tokens: int = 3, versions: list[tuple[int, int]] | None = None) -> Sampled:
    return Sampled(
        request_id=entry,
        index=index,
        token_ids=[index] * tokens,
        text=f"text {index}",
        logprobs=[-0.25] * tokens,
        versions=versions if versions is not None else [(tokens, 0)],
        finish_reason="stop",
        seconds=0.5,
    )


def delivery(entry: str, completions: int, id: int = 0) -> Delivery:
    return Delivery("tickets", entry, make.ticket(id=id, completions=completions), 1)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_group_leaves_with_its_last_completion_in_the_tickets_order() -> None:
    clock = Clock()
    groups = Groups("actor-1", clock)
    a, b = delivery("a", 4, id=1), delivery("b", 2, id=2)
    groups.start(a)
    groups.start(b)
    arrivals = [("a", i) for i in range(4)] + [("b", i) for i in range(2)]
    random.Random(3).shuffle(arrivals)
    clock.now += 2.5

    finished = [done for entry, index in arrivals if (done := groups.add(sampled(f"tickets/{entry}", index)))]

    assert sorted(d.entry for d, _ in finished) == ["a", "b"] and len(groups) == 0
    for held, rollout in finished:
        assert rollout.ticket is held.ticket
        assert [c.text for c in rollout.completions] == [f"text {i}" for i in range(held.ticket.completions)]
        assert (rollout.actor, rollout.seconds) == ("actor-1", 2.5)
        assert isinstance(unpack(pack(rollout)), type(rollout)), "and the wire takes it"


def test_a_completion_that_comes_twice_counts_once() -> None:
    groups = Groups("actor-1")
    groups.start(delivery("a", 2))
    assert groups.add(sampled("tickets/a", 0)) is None
    assert groups.add(sampled("tickets/a", 0)) is None
    assert groups.add(sampled("tickets/a", 1)) is not None


def test_what_was_given_up_never_leaves() -> None:
    groups = Groups("actor-1")
    held = delivery("a", 1)
    groups.start(held)
    assert groups.entries("tickets") == {"a"} and groups.of("train") == [held]
    assert groups.give_up("tickets/a") is held
    assert groups.give_up("tickets/a") is None
    assert groups.add(sampled("tickets/a", 0)) is None and len(groups) == 0


@pytest.mark.parametrize("incarnation", [0, 1, 70_000])
@pytest.mark.parametrize("step", [0, 1, STEPS_PER_INCARNATION - 1])
def test_versions_keep_incarnation_and_step(incarnation: int, step: int) -> None:
    policy = make.policy(incarnation, step)
    later = dataclasses.replace(policy, incarnation=incarnation + 1, step=0)
    assert version_key(later) > version_key(policy), "a newer branch is a newer version"

    completion = completion_of(sampled("a", 0, 5, [(2, version_key(policy)), (3, version_key(later))]))

    assert completion.versions == [(2, incarnation, step), (3, incarnation + 1, 0)]
    assert completion.oldest_step == 0 if step else completion.oldest_step == step
    assert completion.ids.dtype == np.int32 and completion.logprobs.dtype == np.float32


def test_an_empty_completion() -> None:
    completion = completion_of(sampled("a", 0, 0, []))
    assert completion.oldest_step is None and len(completion.ids) == 0
