"""The actor's loop on a real server around a sampler without a model: poison, hand-back, what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest

from actors.engine import Engine
from actors.worker import TICKETS, Actor
from common.lanes import Lane
from common.schema import pack
from common.settings import Sections
from common.streams import Broker
from tests.chaos.fast_engine import FastEngine
from tests.make import policy, ticket
from tests.until import until

CLAIM_AFTER_MS = 500
LONG_MS = 60_000
"""A lease that does not run out, and no look for others' meanwhile, however busy the machine is."""
POISON = 63


class Dies(FastEngine):
    """Ends its process on one prompt, as an illegal memory access does."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__(vocabulary)
        self.asked: list[dict[str, Any]] = []

    def add(self, request_id: str, prompt_ids: Sequence[int], **sampled: Any) -> None:
        super().add(request_id, prompt_ids, **sampled)
        self.asked.append(sampled)
        if POISON in prompt_ids:
            raise RuntimeError("illegal memory access")


@pytest.fixture
def actor_of(broker: Broker) -> Iterator[Callable[..., Actor]]:
    """Actors of one run that follow a policy which loads at once."""
    made: list[Actor] = []

    def actor_of(claim_after_ms: int = CLAIM_AFTER_MS) -> Actor:
        settings = Sections.model_validate(
            {"broker": {"claim_after_ms": claim_after_ms}, "actor": {"groups_in_flight": 4, "weights_from": "folder"}}
        )
        own = Broker(broker.url, broker.run, "actor")
        made.append(Actor(settings, own, cast(Engine, Dies(64)), threading.Event()))
        made[-1]._follower.policy = policy(1, 0)
        return made[-1]

    yield actor_of
    for actor in made:
        actor._leases.close()


def issue(broker: Broker, count: int, poison: int = -1, **changes: Any) -> None:
    changes = {"incarnation": broker.take_over()} | changes
    prompts = [np.array([POISON if id == poison else 1], np.int32) for id in range(count)]
    broker.issue_together([ticket(broker.run, id, prompt_ids=prompt, **changes) for id, prompt in enumerate(prompts)])


def works(actor: Actor, done: Callable[[], bool]) -> None:
    until(lambda: actor._take_tickets() or actor._sample() or done(), "rollouts")


def rollouts(broker: Broker, lane: Lane = "train") -> set[int]:
    return {id for id, (stage, _) in broker.open_tickets(lane).items() if stage == "rollouts"}


def test_a_ticket_that_ends_engines_takes_no_other_along(broker: Broker, actor_of: Callable[[], Actor]) -> None:
    issue(broker, 4, poison=2)
    deaths = 0
    while len(rollouts(broker)) < 3 and deaths < 10:
        actor = actor_of()
        try:
            works(actor, lambda: len(rollouts(broker)) == 3)
        except RuntimeError:
            deaths += 1
            actor._leases._held.clear()  # as when it is killed
            actor._leases.close()
            time.sleep(CLAIM_AFTER_MS / 1000)
    assert rollouts(broker) == {0, 1, 3}
    until(lambda: broker.claim("tickets", CLAIM_AFTER_MS, 3) or broker.dead_letters(), "dead letter")
    assert [letter.id for _, letter in broker.dead_letters()] == [2]


def test_what_an_actor_does_not_finish_it_hands_back(broker: Broker, actor_of: Callable[[], Actor]) -> None:
    issue(broker, 3)
    actor = actor_of(LONG_MS)
    until(lambda: actor._take_tickets() or len(actor._groups) == 3, "tickets")
    assert broker.claim("tickets", LONG_MS, 3) == [], "its leases live"
    actor.close()
    assert [d.deliveries for d in broker.claim("tickets", LONG_MS, 3)] == [1, 1, 1]


def test_an_outage_that_outlasts_the_leases_is_no_failure_of_what_is_sampled(
    broker: Broker, actor_of: Callable[[], Actor]
) -> None:
    issue(broker, 2)
    actor = actor_of()
    until(lambda: actor._take_tickets() or len(actor._groups) == 2, "tickets")
    actor._broker.renew = lambda held: {d.name for d in held}  # type: ignore[method-assign]  # which nobody hears
    for _ in range(4):
        time.sleep(CLAIM_AFTER_MS / 1000)
        actor._take_tickets()
    pending = broker._redis.xpending_range(broker.key("tickets"), "actors", "-", "+", 9)
    assert [lease["times_delivered"] for lease in pending] == [1, 1] and len(actor._groups) == 2
    works(actor, lambda: rollouts(broker) == {0, 1})


def test_an_actor_that_cannot_load_weights_says_so(broker: Broker, actor_of: Callable[[], Actor]) -> None:
    actor = actor_of()
    actor._follower.policy = None
    broker.announce(policy(broker.take_over(), 0, "/nowhere"))
    actor._follower.follow(now=True)
    actor._over()
    [state] = broker.processes().values()
    assert state["waits_for"] == "the weights of the newest policy" and "/nowhere" in state["waits_until"]


def slots(actor: Actor) -> tuple[int, int]:
    """Groups of training and of evaluation that it works on."""
    return len(actor._groups.of("train")), len(actor._groups.of("eval"))


def test_training_waits_for_one_slot_of_evaluation_and_no_more(broker: Broker, actor_of: Callable[[], Actor]) -> None:
    # Given an actor without tickets of training, all of whose slots are evaluation's
    issue(broker, 6, lane="eval")
    actor = actor_of(LONG_MS)
    until(lambda: actor._take_tickets() or slots(actor) == (0, 4), "tickets of evaluation")
    oldest = actor._groups.of("eval")[0]
    # When two of training come, then they are taken at once, in the place of the youngest two
    issue(broker, 2)
    actor._take_tickets()
    assert slots(actor) == (2, 2) and [d.ticket.id for d in actor._groups.of("eval")] == [0, 1]
    # And of any more but one slot is left to evaluation
    incarnation = broker.take_over()
    broker.issue_together([ticket(broker.run, id, incarnation=incarnation) for id in range(2, 9)])
    actor._take_tickets()
    assert slots(actor) == (3, 1) and actor._groups.of("eval") == [oldest]
    # What was handed back is at once free for others, and did not fail
    other = Broker(broker.url, broker.run, "other")
    taken = other.claim("eval:tickets", LONG_MS, 3)
    assert sorted((d.ticket.id, d.deliveries) for d in taken) == [(1, 1), (2, 1), (3, 1)]
    assert len(actor._engine._running) == 4 * 2, "and the engine samples it no longer"  # type: ignore[attr-defined]


def test_evaluation_ends_beside_training_that_never_pauses(broker: Broker, actor_of: Callable[[], Actor]) -> None:
    # Given far more tickets of training than an actor has slots
    issue(broker, 40)
    actor = actor_of()
    until(lambda: actor._take_tickets() or slots(actor) == (4, 0), "tickets of training")
    # When an evaluation begins
    issue(broker, 3, lane="eval")
    most = [0, 0]

    def step() -> bool:
        most[:] = map(max, most, slots(actor))
        assert sum(slots(actor)) <= 4
        return rollouts(broker, "eval") == {0, 1, 2}

    works(actor, step)
    # Then it has one slot at a time, and comes to its end before training does
    assert most == [4, 1] and 0 < len(rollouts(broker)) < 40


def test_entries_of_two_lanes_may_be_the_same(broker: Broker, actor_of: Callable[[], Actor]) -> None:
    incarnation = broker.take_over()
    lanes: dict[Lane, str] = {"train": "", "eval": "eval:"}
    for lane, prefix in lanes.items():
        order = ticket(broker.run, 7, lane=lane, incarnation=incarnation)
        broker._redis.hset(broker.key(f"{prefix}open"), 7, "tickets 1")
        broker._redis.xadd(broker.key(f"{prefix}tickets"), {"m": pack(order), "id": 7, "attempt": 1}, id="5-1")
    actor = actor_of()
    until(lambda: actor._take_tickets() or slots(actor) == (1, 1), "both")
    assert len({d.entry for lane in lanes for d in actor._groups.of(lane)}) == 1
    works(actor, lambda: rollouts(broker) == rollouts(broker, "eval") == {7})
    [made], [other] = broker.read("rollouts", 9, 100), broker.read("eval:rollouts", 9, 100)
    assert (made.ticket.lane, other.ticket.lane) == ("train", "eval")


def test_a_ticket_is_sampled_as_it_says(broker: Broker, actor_of: Callable[[], Actor]) -> None:
    issue(broker, 1)
    issue(broker, 1, lane="eval", top_p=0.95, temperature=0.6, max_tokens=9, completions=3)
    actor = actor_of()
    until(lambda: actor._take_tickets() or slots(actor) == (1, 1), "both")
    assert actor._engine.asked == [  # type: ignore[attr-defined]
        {"n": 3, "temperature": 0.6, "top_p": 0.95, "max_tokens": 9},
        {"n": 2, "temperature": 1.0, "top_p": 1.0, "max_tokens": 16},
    ]


def test_a_poison_of_evaluation_takes_nothing_along(broker: Broker, actor_of: Callable[[], Actor]) -> None:
    # Given a ticket of either lane that ends engines
    issue(broker, 3, poison=1)
    issue(broker, 3, poison=1, lane="eval")
    deaths = 0
    while (len(rollouts(broker)), len(rollouts(broker, "eval"))) != (2, 2) and deaths < 20:
        actor = actor_of()
        try:
            works(actor, lambda: len(rollouts(broker)) == len(rollouts(broker, "eval")) == 2)
        except RuntimeError:
            deaths += 1
            actor._leases._held.clear()  # as when it is killed
            actor._leases.close()
            time.sleep(CLAIM_AFTER_MS / 1000)
    assert rollouts(broker) == rollouts(broker, "eval") == {0, 2}
    for stage in TICKETS:
        until(lambda stage=stage: broker.claim(stage, CLAIM_AFTER_MS, 3) or broker.dead_count() == 2, "dead letters")
    letters = [letter for _, letter in broker.dead_letters()]
    assert {(letter.stage, letter.id) for letter in letters} == {("tickets", 1), ("eval:tickets", 1)}
