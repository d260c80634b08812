"""When new weights are loaded, and what becomes of what is being sampled."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from actors.engine import Engine
from actors.follower import FAILURES
from actors.worker import Actor
from common.errors import WeightsError
from common.schema import Policy, Rollout
from common.settings import Sections
from common.streams import Broker
from common.weights.folder import FILE
from tests.chaos import fast_engine
from tests.chaos.fast_engine import FastEngine
from tests.make import published, ticket


class Counting(FastEngine):
    """Counts the steps that it took for what it samples, and remembers what was begun anew."""

    def __init__(self) -> None:
        super().__init__(64)
        self.begun: list[str] = []

    def add(self, request_id: str, prompt_ids: Any, **sampled: Any) -> None:
        super().add(request_id, prompt_ids, **sampled)
        self.begun.append(request_id)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_engine, "STEP_S", 0.0)
    monkeypatch.setattr("actors.follower.POLL_S", 0.0)
    monkeypatch.setattr("actors.follower.RETRY_S", 0.0)


def actor_of(broker: Broker, **options: Any) -> Actor:
    settings = Sections.model_validate({"actor": {"weights_from": "folder", "groups_in_flight": 2, **options}})
    own = Broker(broker.url, broker.run, "actor")
    return Actor(settings, own, cast(Engine, Counting()), threading.Event())


def announce(broker: Broker, root: Path, incarnation: int, step: int) -> Policy:
    made = published(root, incarnation, step, float(step))
    broker.announce(made)
    return made


def turn(actor: Actor) -> None:
    """Once around the actor's loop."""
    actor._follower.follow()
    actor._take_tickets()
    actor._sample()


def begin_two(actor: Actor) -> None:
    engine = cast(Counting, actor._engine)
    while not engine.begun:  # the first turn looks for what others have left
        turn(actor)
    assert len(engine.begun) == 2


@pytest.mark.parametrize("way", ["keep", "finish", "abort"])
def test_what_becomes_of_what_is_being_sampled(broker: Broker, tmp_path: Path, way: str) -> None:
    # Given two groups in the middle of being sampled, and a third that waits
    incarnation = broker.take_over()
    announce(broker, tmp_path, incarnation, 0)
    broker.issue_together([ticket(broker.run, id, incarnation=incarnation) for id in range(3)])
    actor = actor_of(broker, on_new_weights=way)
    engine = cast(Counting, actor._engine)
    try:
        begin_two(actor)
        # When new weights come
        announce(broker, tmp_path, incarnation, 1)
        turn(actor)
        # Then they are loaded at once, or when what was begun has ended and nothing else was begun meanwhile
        policy = actor._follower.policy
        assert policy and policy.step == (0 if way == "finish" else 1)
        assert actor._follower.holds == (way == "finish")
        assert len(engine.begun) == (4 if way == "abort" else 2)
        for _ in range(20):
            turn(actor)
    finally:
        actor.close()
    # And every group is sampled once, by the policies that its way promises
    rollouts = [delivery.message for delivery in broker.read("rollouts", 5, 100)]
    steps = {
        m.ticket.id: {s for c in m.completions for _, _, s in c.versions} for m in rollouts if isinstance(m, Rollout)
    }
    assert (
        steps
        == {"keep": {0: {1}, 1: {1}, 2: {1}}, "finish": {0: {0}, 1: {0}, 2: {1}}, "abort": {0: {1}, 1: {1}, 2: {1}}}[
            way
        ]
    )
    assert actor._follower.policy and actor._follower.policy.step == 1


def test_a_group_begins_again_once_so_that_it_ends_however_fast_weights_come(broker: Broker, tmp_path: Path) -> None:
    # Given two groups that were begun again
    incarnation = broker.take_over()
    announce(broker, tmp_path, incarnation, 0)
    broker.issue_together([ticket(broker.run, id, incarnation=incarnation) for id in range(2)])
    actor = actor_of(broker, on_new_weights="abort")
    engine = cast(Counting, actor._engine)
    try:
        begin_two(actor)
        announce(broker, tmp_path, incarnation, 1)
        turn(actor)
        assert len(engine.begun) == 4
        # When new weights come once more
        announce(broker, tmp_path, incarnation, 2)
        turn(actor)
        # Then they are loaded, and the groups go on
        assert actor._follower.policy and actor._follower.policy.step == 2
        assert len(engine.begun) == 4 and len(actor._groups) == 2
    finally:
        actor.close()


def test_a_group_whose_restart_finds_still_newer_weights_is_begun_once(broker: Broker, tmp_path: Path) -> None:
    incarnation = broker.take_over()
    announce(broker, tmp_path, incarnation, 0)
    broker.issue_together([ticket(broker.run, id, incarnation=incarnation, step=9) for id in range(2)])
    actor = actor_of(broker, on_new_weights="abort")
    engine = cast(Counting, actor._engine)
    try:
        begin_two(actor)
        for step in (1, 2):
            announce(broker, tmp_path, incarnation, step)
        turn(actor)
        assert len(engine.begun) == 4 and len(actor._groups) == 2
        assert not broker.dead_letters()
    finally:
        actor.close()


def test_an_actor_ends_when_what_is_there_is_never_what_was_announced(broker: Broker, tmp_path: Path) -> None:
    made = published(tmp_path, broker.take_over())
    broker.announce(made)
    file = Path(made.folder) / FILE
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    actor = actor_of(broker)
    try:
        for _ in range(FAILURES - 1):
            actor._follower.follow()
        assert actor._follower.missing and actor._follower.policy is None
        with pytest.raises(WeightsError, match="torn or foreign"):
            actor._follower.follow()
    finally:
        actor.close()


def test_a_version_that_was_removed_while_it_was_announced_is_no_failure(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incarnation = broker.take_over()
    broker.announce(dataclasses.replace(published(tmp_path, incarnation, 0), folder=str(tmp_path / "gone")))
    actor = actor_of(broker)
    found: list[Policy | None] = [actor._follower._source.newest()]
    try:
        made = announce(broker, tmp_path, incarnation, 1)
        real = actor._follower._source.newest
        monkeypatch.setattr(actor._follower._source, "newest", lambda: found.pop() if found else real())
        actor._follower.follow()
        assert actor._follower.missing == "" and actor._follower.policy is None
        actor._follower.follow()
        assert actor._follower.policy and actor._follower.policy.step == made.step
    finally:
        actor.close()
