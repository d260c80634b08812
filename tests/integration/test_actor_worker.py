"""The actor's loop on a real server around a sampler without a model: poison, hand-back, what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import pytest

from actors.engine import Engine
from actors.worker import Actor
from common.schema import Policy
from common.settings import Sections
from common.streams import Broker
from tests.chaos.fast_engine import FastEngine
from tests.make import ticket
from tests.until import until

CLAIM_AFTER_MS = 500
POISON = 63


class Dies(FastEngine):
    """Ends its process on one prompt, as an illegal memory access does."""

    def add(self, request_id: str, prompt_ids: Sequence[int], *, n: int, temperature: float, max_tokens: int) -> None:
        super().add(request_id, prompt_ids, n=n, temperature=temperature, max_tokens=max_tokens)
        if POISON in prompt_ids:
            raise RuntimeError("illegal memory access")


@pytest.fixture
def actor_of(broker: Broker) -> Iterator[Callable[[], Actor]]:
    """Actors of one run that follow a policy which loads at once."""
    settings = Sections.model_validate({"broker": {"claim_after_ms": CLAIM_AFTER_MS}, "actor": {"groups_in_flight": 4}})
    made: list[Actor] = []

    def actor_of() -> Actor:
        own = Broker(broker.url, broker.run, "actor")
        made.append(Actor(settings, own, cast(Engine, Dies(64)), threading.Event()))
        made[-1]._policy = Policy(1, 0, "0" * 64, "/weights")
        return made[-1]

    yield actor_of
    for actor in made:
        actor._leases.close()


def issue(broker: Broker, count: int, poison: int = -1) -> None:
    incarnation = broker.take_over()
    prompts = [np.array([POISON if id == poison else 1], np.int32) for id in range(count)]
    broker.issue_together(
        [ticket(broker.run, id, incarnation=incarnation, prompt_ids=prompt) for id, prompt in enumerate(prompts)]
    )


def works(actor: Actor, done: Callable[[], bool]) -> None:
    until(lambda: actor._take_tickets() or actor._sample() or done(), "rollouts", seconds=20)


def rollouts(broker: Broker) -> set[int]:
    return {id for id, (stage, _) in broker.open_tickets().items() if stage == "rollouts"}


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
    actor = actor_of()
    until(lambda: actor._take_tickets() or len(actor._groups) == 3, "tickets")
    time.sleep(0.05)
    assert broker.claim("tickets", CLAIM_AFTER_MS, 3) == [], "its leases live"
    actor.close()
    assert [d.deliveries for d in broker.claim("tickets", CLAIM_AFTER_MS, 3)] == [1, 1, 1]


def test_an_outage_that_outlasts_the_leases_is_no_failure_of_what_is_sampled(
    broker: Broker, actor_of: Callable[[], Actor]
) -> None:
    issue(broker, 2)
    actor = actor_of()
    until(lambda: actor._take_tickets() or len(actor._groups) == 2, "tickets")
    actor._broker.renew = lambda held: {d.entry for d in held}  # type: ignore[method-assign]  # which nobody hears
    for _ in range(4):
        time.sleep(CLAIM_AFTER_MS / 1000)
        actor._take_tickets()
    pending = broker._redis.xpending_range(broker.key("tickets"), "actors", "-", "+", 9)
    assert [lease["times_delivered"] for lease in pending] == [1, 1] and len(actor._groups) == 2
    works(actor, lambda: rollouts(broker) == {0, 1})


def test_an_actor_that_cannot_load_weights_says_so(broker: Broker, actor_of: Callable[[], Actor]) -> None:
    actor = actor_of()
    actor._policy = None
    broker.announce(Policy(broker.take_over(), 0, "0" * 64, "/nowhere"))
    actor._follow_policy(at_least=0)
    actor._over()
    [state] = broker.processes().values()
    assert state["waits_for"] == "the weights of the newest policy" and "/nowhere" in state["waits_until"]
