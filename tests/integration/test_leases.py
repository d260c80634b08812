"""A lease lasts as long as its holder lives, however long the work takes; a robbed holder learns it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common.deliveries import Delivery
from common.leases import Leases
from common.streams import Broker
from tests.make import ticket
from tests.until import until

CLAIM_AFTER_MS = 600
LONG_MS = 60_000
"""Longer than a busy machine keeps a thread from its turn."""


@pytest.fixture
def leases(broker: Broker) -> Iterator[Leases]:
    kept = Leases(broker, CLAIM_AFTER_MS)
    yield kept
    kept.close()


@pytest.fixture
def held(broker: Broker) -> list[Delivery]:
    incarnation = broker.take_over()
    for id in range(2):
        broker.issue(ticket(broker.run, id, incarnation=incarnation))
    return broker.read("tickets", 8, 100)


def idle_ms(broker: Broker) -> list[int]:
    pending = broker._redis.xpending_range(broker.key("tickets"), "actors", "-", "+", 10)
    return [entry["time_since_delivered"] for entry in pending]


def other(broker: Broker) -> Broker:
    return Broker(broker.url, broker.run, "other")


def test_what_is_held_is_renewed_and_what_is_released_runs_out(
    broker: Broker, held: list[Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = held
    renew, renewed = broker.renew, list[list[Delivery]]()
    monkeypatch.setattr(broker, "renew", lambda kept: renewed.append(kept) or renew(kept))
    leases = Leases(broker, CLAIM_AFTER_MS)
    try:
        leases.hold(held)
        leases.release([second])
        until(lambda: renewed and renewed[-1] == [first], "renewals of what is held alone")
        # When longer passes than a lease lasts
        own = (broker.key("tickets"), "actors", broker.consumer)
        broker._redis.xclaim(*own, 0, [d.entry for d in held], idle=2 * LONG_MS, justid=True)
        until(lambda: idle_ms(broker)[0] < LONG_MS, "another renewal")
        # Then another worker gets only what nobody works on
        assert [d.entry for d in other(broker).claim("tickets", LONG_MS, 99)] == [second.entry]
        assert renew([first]) == {first.name} and leases.lost() == set()
    finally:
        leases.close()


def test_a_renewal_is_no_delivery(broker: Broker, leases: Leases, held: list[Delivery]) -> None:
    leases.hold(held)
    until(lambda: max(idle_ms(broker)) > CLAIM_AFTER_MS / 4)
    until(lambda: max(idle_ms(broker)) < CLAIM_AFTER_MS / 4)
    [robbed, _] = other(broker).claim("tickets", 0, 99)
    assert robbed.deliveries == 2, "the first reading and this one"


def test_a_robbed_holder_is_told_once(broker: Broker, leases: Leases, held: list[Delivery]) -> None:
    leases.hold(held)
    thief = other(broker)
    robbed = thief.claim("tickets", 0, 99)
    assert len(robbed) == 2
    lost: set[str] = set()
    until(lambda: lost.update(leases.lost()) or len(lost) == 2)
    assert lost == {d.name for d in held} and leases.lost() == set()
    assert thief.renew(robbed) == lost, "and does not steal it back"


def test_closing_ends_the_renewals(broker: Broker, held: list[Delivery]) -> None:
    leases = Leases(broker, CLAIM_AFTER_MS)
    leases.hold(held)
    leases.close()
    until(lambda: min(idle_ms(broker)) > CLAIM_AFTER_MS)
    assert len(other(broker).claim("tickets", CLAIM_AFTER_MS, 99)) == 2


def test_a_broker_that_fails_for_a_while_loses_no_lease(
    broker: Broker, leases: Leases, held: list[Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.errors import BrokerUnavailable

    real, failures = broker.renew, []

    def renew(deliveries: list[Delivery]) -> set[str]:
        if len(failures) < 2:
            failures.append(1)
            raise BrokerUnavailable("away")
        return real(deliveries)

    monkeypatch.setattr(broker, "renew", renew)
    leases.hold(held)
    until(lambda: len(failures) == 2 and max(idle_ms(broker)) < CLAIM_AFTER_MS / 4)
    assert leases.lost() == set()
