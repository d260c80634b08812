"""What strangers, accidents and other runs may leave in the broker: no process ends or hangs, each is told, good
groups are still trained on and the books balance.

| what                                          | test                                                              |
|-----------------------------------------------|-------------------------------------------------------------------|
| foreign entries in every stream               | here: test_foreign_entries_..., test_a_run_among_foreign_entries  |
| foreign entries, wild scores beside a shadow  | test_shadow: test_what_is_none_of_..., test_scores_beyond_...     |
| foreign entries among the dead letters        | here: test_many_foreign_letters_..., test_streams, test_queue     |
| truncated messages, flipped bits              | unit/test_schema: test_cut_off_..., test_every_flipped_bit_...;   |
|                                               | here: test_a_message_that_was_damaged_..., test_streams           |
| memory out of proportion                      | unit/test_schema: test_memory_stays_in_proportion                 |
| wrong versions                                | unit/test_schema: test_a_foreign_envelope_...; here: test_foreign |
| the same ticket twice, two workers finish it  | here: test_the_same_ticket_twice_...; test_streams                |
| a ticket or group that was trained already    | here: test_a_ticket_that_was_trained_...; test_learner_worker     |
| a ticket or group of another run              | here: test_a_message_of_another_run_...; test_streams             |
| tickets of a fenced learner                   | test_streams: test_an_old_learner_is_fenced_off                   |
| groups of an older incarnation                | here: test_groups_of_an_older_incarnation_...                     |
| a scored group that nobody ordered            | here: test_a_group_for_a_ticket_that_..., test_a_group_that_...   |
| unknown or garbled open tickets               | here: test_garbled_open_tickets_..., test_open_tickets_that_...   |
| open tickets whose messages are gone          | here: test_a_ticket_that_is_open_..., test_a_stream_that_...      |
| over a limit, sent                            | here: test_a_group_too_large_..., test_a_worker_that_makes_...    |
| over a limit, received                        | here: test_a_message_over_a_limit_...; unit/test_schema           |
| clocks hours apart                            | here: test_clocks_hours_apart_...                                 |
| keys of another type, streams at their end    | here: test_a_key_of_another_type_..., test_a_stream_at_its_...    |
| garbled fence, policy, sigma, heartbeats      | here: test_a_garbled_..., test_a_forged_policy_..., test_foreign_ |
|                                               | heartbeats_...                                                    |
| what steers a terminal                        | here: test_letters_cannot_steer_...; unit/test_untrusted          |
| all of that with a full broker                | here: test_a_foreign_entry_in_a_full_broker_...                   |
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import structlog

from actors.engine import Sampled
from actors.worker import Actor
from common import schema, streams
from common.connection import KINDS
from common.deliveries import Delivery
from common.errors import BrokerUnfit
from common.lanes import GROUPS, LANES, Stage, lane_of, state_of
from common.schema import OLDEST_WIRE, Carried, Completion, Part, Ring, Rollout, Ticket, pack
from common.settings import Sections
from common.sigma import Sigma
from common.streams import Broker
from common.weights.store import WeightStore
from deploy import cli, queue
from deploy.watch import Watch
from scorer.verifier import Verdict
from scorer.worker import Scorer
from tests.integration.learning import Bench, Player, finish
from tests.make import policy, rollout, scored, ticket
from tests.until import until

HOURS_S = 7 * 3600.0
TRAINING: list[Stage] = [stage for stage in GROUPS if lane_of(stage) == "train"]


def put(broker: Broker, stage: str, **fields: Any) -> str:
    entry: bytes = broker._redis.xadd(broker.key(stage), fields)
    return entry.decode()


def message_of(broker: Broker, stage: Stage, id: int = 0, **changes: Any) -> Any:
    """What belongs into the stream of a stage."""
    order = ticket(**{"run": broker.run, "lane": lane_of(stage), "id": id} | changes)
    return {"tickets": order, "rollouts": rollout(order), "scored": scored(rollout(order))}[state_of(stage)]


def issue(broker: Broker, count: int = 1) -> int:
    incarnation = broker.take_over()
    broker.issue_together([ticket(broker.run, id, incarnation=incarnation) for id in range(count)])
    return incarnation


def reasons(broker: Broker) -> list[str]:
    return [letter.reason for _, letter in broker.dead_letters()]


def balanced(books: dict[str, int]) -> bool:
    return books["issued"] == sum(count for name, count in books.items() if name != "issued")


def damaged(data: bytes) -> bytes:
    """One bit of the last byte is another: in our messages that is inside a number or a tensor."""
    return data[:-1] + bytes([data[-1] ^ 1])


def other_version(data: bytes, version: int) -> bytes:
    return data[:4] + bytes([version]) + data[5:]


FOREIGN: list[tuple[dict[str, Any], str]] = [
    ({"hello": "world"}, "it has no head"),
    ({"m": b""}, "it has no head"),
    ({"m": b"\xc1 no msgpack"}, "it has no head"),
    ({"m": msgpack.packb({"v": 1, "k": "ticket", "b": {}}), "id": "x"}, "it has no head"),
    ({"m": pack(policy(1, 1))}, "a policy in the stream"),
    ({"m": damaged(pack(ticket())), "id": "x", "attempt": "1"}, "damaged on its way"),
    ({"m": damaged(pack(ticket())), "id": "-1", "attempt": "1"}, "damaged on its way"),
    ({"m": damaged(pack(ticket())), "id": str(10**18), "attempt": "1"}, "damaged on its way"),
    ({"m": damaged(pack(ticket())), "id": "9" * 400, "attempt": "1"}, "damaged on its way"),
    ({"m": damaged(pack(ticket())), "id": "77", "attempt": "1"}, "beside it stands ticket 77, attempt 1"),
    ({"m": damaged(pack(ticket())), "id": "1", "attempt": "0" * 99}, "damaged on its way"),
    ({"m": other_version(pack(ticket()), 1)}, f"wire version 1, this process reads {OLDEST_WIRE} and later"),
    ({"m": pack(ticket("elsewhere"))}, "belongs to run 'elsewhere'"),
]


@pytest.mark.parametrize("stage", GROUPS)
def test_foreign_entries_become_letters_and_the_next_message_is_read(broker: Broker, stage: Stage) -> None:
    for fields, _ in FOREIGN:
        put(broker, stage, **fields)
    other = next(lane for lane in LANES if lane != lane_of(stage))
    put(broker, stage, m=pack(message_of(broker, stage, lane=other)))
    put(broker, stage, m=pack(message_of(broker, stage)))
    [good] = broker.read(stage, 99, 100)
    assert good.ticket.id == 0
    *found, last = reasons(broker)
    assert f"its ticket is one of {other}, in the stream of {stage}" in last
    for place, (_, says) in enumerate(FOREIGN):
        assert says in found[place] or "in the stream of" in found[place]
    assert len(found) == len(FOREIGN) and broker.backlog()[stage]["pending"] == 1
    assert all(letter.id is None for _, letter in broker.dead_letters()), "nobody has issued a ticket that they name"


def test_a_run_among_foreign_entries_comes_to_its_end(bench: Bench) -> None:
    class Among(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            for stage in (*GROUPS, "dead"):
                for fields, _ in FOREIGN:
                    put(self.broker, stage, **fields)
            super().sample(order, ticket)

    bench.play(Among)
    books = finish(bench.learner(steps=3))
    assert books["trained"] == 6 and books["in_flight"] == 0 and balanced(books) and books["dead_lettered"] == 0
    assert bench.broker.open_tickets() == {}
    assert len(reasons(bench.broker)) == 100, "a page of them"


def test_many_foreign_letters_hide_no_other(bench: Bench) -> None:
    class Burying(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id == 1:
                for _ in range(250):
                    put(self.broker, "dead", m=b"junk")
                self.broker.bury(order, "cannot be sampled", "")
            else:
                super().sample(order, ticket)

    bench.play(Burying)
    books = finish(bench.learner(steps=3))
    assert books == {"issued": 7, "trained": 6, "in_flight": 0, "dropped": 0, "dead_lettered": 1}


@pytest.mark.parametrize("stage", TRAINING)
def test_a_message_that_was_damaged_on_its_way_is_replaced(bench: Bench, stage: Stage) -> None:
    # Given a message of ticket 1 in which one bit has flipped, in a token id or a log-probability perhaps
    class Damaging(Player):
        def __init__(self, broker: Broker) -> None:
            super().__init__(broker)
            self.done = False

        def damage(self, taken: Delivery) -> bool:
            if taken.ticket.id != 1 or self.done:
                return False
            self.done = True
            redis, key = self.broker._redis, self.broker.key
            redis.xack(key(taken.stage), GROUPS[taken.stage], taken.entry)
            redis.hset(key("open"), 1, f"{stage} 1")
            broken = damaged(pack(message_of(self.broker, stage, id=1)))
            redis.xadd(key(stage), {"m": broken, "id": 1, "attempt": 1})
            return True

        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if not self.damage(order):
                super().sample(order, ticket)

    bench.play(Damaging)
    books = finish(bench.learner(steps=3))
    # Then nobody trains on it: it is given up with the reason, and another ticket takes its place
    assert books == {"issued": 7, "trained": 6, "in_flight": 0, "dropped": 0, "dead_lettered": 1}
    [(_, letter)] = bench.broker.dead_letters()
    assert (letter.id, letter.attempt, letter.stage) == (1, 1, stage) and "damaged on its way" in letter.reason


def test_the_same_ticket_twice_in_a_stream_is_published_once(broker: Broker) -> None:
    # Given a ticket that stands twice in the stream, so that two actors sample it
    issue(broker)
    [(_, fields)] = broker._redis.xrange(broker.key("tickets"))
    broker._redis.xadd(broker.key("tickets"), fields)
    other = Broker(broker.url, broker.run, "other")
    [first], [second] = broker.read("tickets", 1, 100), other.read("tickets", 1, 100)
    # When both hand over
    assert broker.hand_over(first, rollout(first.ticket))
    with structlog.testing.capture_logs() as logs:
        assert not other.hand_over(second, rollout(second.ticket))
    # Then the second is refused and told, and nothing is left of either
    assert [line["event"] for line in logs] == ["not published: the ticket has moved on"]
    assert len(broker.read("rollouts", 9, 100)) == 1 and broker.backlog()["tickets"]["pending"] == 0


def test_a_ticket_that_was_trained_already_changes_nothing(bench: Bench) -> None:
    # Given a stranger who puts tickets up again, also when they are trained and closed
    class Again(Player):
        old: list[Ticket] = []

        def sample(self, order: Delivery, ticket: Ticket) -> None:
            super().sample(order, ticket)
            if self.seen[ticket.id, ticket.attempt] == 1:
                self.old.append(ticket)
                for known in self.old:
                    put(self.broker, "tickets", m=pack(known), id=known.id, attempt=1)

    bench.play(Again)
    books = finish(bench.learner(steps=5))
    assert books["trained"] == 10 and books["in_flight"] == 0 and balanced(books)
    assert max(Counter(bench.logged()).values()) == 1


@pytest.mark.parametrize("stage", GROUPS)
def test_a_message_of_another_run_is_given_up(broker: Broker, stage: Stage) -> None:
    issue(broker)
    put(broker, stage, m=pack(message_of(broker, stage, run="elsewhere")), id=0, attempt=9)
    assert [d.ticket.run for d in broker.read(stage, 9, 100)] in ([], [broker.run])
    [reason] = reasons(broker)
    assert reason.startswith(f"unreadable: it belongs to run 'elsewhere', this is '{broker.run}'")
    assert broker.open_tickets() == {0: ("tickets", 1)}, "the ticket of that number in this run is another"


def test_groups_of_an_older_incarnation_are_trained_within_the_staleness_bound(bench: Bench) -> None:
    # Given groups that actors finished for a learner that has died since; one of a branch that was left
    first = bench.learner(steps=3)
    first.start()
    first._issue()
    broker = bench.broker
    for order in broker.read("tickets", 99, 100):
        step = 57 if order.ticket.id == 2 else 0
        assert order.ticket.incarnation == 1 and broker.hand_over(order, rollout(order.ticket, step=step))
    for made in broker.read("rollouts", 99, 100):
        broker.hand_over(made, scored(made.message))
    # When the next learner takes over
    bench.play()
    second = bench.learner(steps=3)
    books = finish(second)
    # Then it trains on them with their own log-probabilities, but for the one that is too far
    assert second._incarnation == 2 and books["trained"] == 6 and balanced(books)
    outcomes = dict(bench.logged())
    assert outcomes[0] == outcomes[1] == "trained" and outcomes[2] == "dropped: abandoned_branch"


@pytest.mark.parametrize("id", [7, 10**12, 2**53])
def test_a_group_for_a_ticket_that_nobody_issued_is_given_up(bench: Bench, id: int) -> None:
    class Inventing(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id == 0:
                put(self.broker, "scored", m=pack(message_of(self.broker, "scored", id=id)), id=id, attempt=1)
            super().sample(order, ticket)

    bench.play(Inventing)
    learner = bench.learner(steps=3)
    books = finish(learner)
    assert books == {"issued": 6, "trained": 6, "in_flight": 0, "dropped": 0, "dead_lettered": 0}
    [(_, letter)] = bench.broker.dead_letters()
    assert letter.id is None and letter.reason.startswith(f"ticket {id} was never issued: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda made: {"ids": np.full(4, 10**6, np.int32)},  # of no vocabulary: the embedding would raise
        lambda made: {"ids": np.zeros(99, np.int32), "logprobs": np.zeros(99, np.float32), "versions": [(99, 1, 0)]},
    ],
    ids=["vocabulary", "length"],
)
def test_a_group_that_is_not_what_was_ordered_is_dropped(bench: Bench, change: Callable[[Any], dict[str, Any]]) -> None:
    class Forging(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            made = rollout(ticket, step=self.step)
            if ticket.id == 1:
                forged: list[Completion] = [dataclasses.replace(c, **change(c)) for c in made.completions]
                made = dataclasses.replace(made, completions=forged)
            self.broker.hand_over(order, made)

    bench.play(Forging)
    learner = bench.learner(steps=3)
    books = finish(learner)
    assert books == {"issued": 7, "trained": 6, "in_flight": 0, "dropped": 1, "dead_lettered": 0}
    assert dict(bench.logged())[1] == "dropped: not_as_ordered"


GARBLED = {
    "x": "y",
    "": "",
    "-1": "tickets 1",
    "05": "tickets 1",
    "5": "tickets",
    "6": "nowhere 1",
    "1e3": "tickets 1",
    "7": "tickets 0",
    "8": f"tickets {10**12}",
    "9" * 30: "tickets 1",
    b"\xff\xfe": b"\xff 1",
}


def test_garbled_open_tickets_are_told_and_removed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    incarnation = issue(broker)
    broker._redis.hset(broker.key("open"), mapping=GARBLED)
    with structlog.testing.capture_logs() as logs:
        assert broker.open_tickets() == {0: ("tickets", 1)}
    [told] = logs
    assert told["event"].startswith("removed from the open tickets") and told["count"] == len(GARBLED)
    assert broker._redis.hgetall(broker.key("open")) == {b"0": b"tickets 1"}
    # And none of them hinders a ticket of that number; a million go in several turns
    monkeypatch.setattr(streams, "REMOVED_TOGETHER", 6)
    broker._redis.hset(broker.key("open"), mapping=GARBLED)
    assert broker.issue(ticket(broker.run, 5, incarnation=incarnation))
    for left in (len(GARBLED) - 7, 0):
        assert broker.open_tickets() == {0: ("tickets", 1), 5: ("tickets", 1)}
        assert broker._redis.hlen(broker.key("open")) == 2 + left


@pytest.mark.parametrize("when", ["before", "while"])
def test_open_tickets_that_nobody_issued_are_closed_and_told(bench: Bench, when: str) -> None:
    # Given open tickets of any number, of which no learner can have issued the larger ones
    unknown = GARBLED | {str(10**12): "tickets 1", str(10**14): "scored 3", "70": "rollouts 1"}

    class Writing(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id == 4:
                self.broker._redis.hset(self.broker.key("open"), mapping=unknown)
                until(lambda: not self.broker._redis.hexists(self.broker.key("open"), 70), "look of the learner")
            super().sample(order, ticket)

    bench.play(Writing if when == "while" else Player)
    learner = bench.learner(steps=5)
    if when == "before":
        bench.broker._redis.hset(bench.broker.key("open"), mapping=unknown)
    # When a learner starts, or meets them
    with structlog.testing.capture_logs() as logs:
        books = finish(learner)
    # Then it believes in none, and says which
    told = [line for line in logs if line["event"].startswith("closed: open tickets")]
    assert [line["ids"] for line in told] == [[70, 10**12, 10**14]]
    assert books["issued"] < 20 and books["trained"] == 10 and balanced(books)
    assert bench.broker.open_tickets() == {}


def test_a_ticket_that_is_open_and_in_no_stream_comes_again(bench: Bench) -> None:
    # Given tickets that the broker counts as open before they are issued, so that their messages are never sent
    bench.broker._redis.hset(
        bench.broker.key("open"), mapping={0: "tickets 1", 1: "scored 1", 2: "rollouts 4", 3: "tickets 99"}
    )
    bench.play()
    books = finish(bench.learner(steps=3))
    assert books["trained"] == 6 and books["in_flight"] == 0 and balanced(books)


@pytest.mark.parametrize("stage", TRAINING)
def test_a_stream_that_is_deleted_costs_no_ticket(bench: Bench, stage: Stage) -> None:
    class Deleting(Player):
        deleted = False

        def score(self, made: Delivery, message: Rollout) -> None:
            super().score(made, message)
            if message.ticket.id == 5 and not self.deleted:
                self.deleted = True
                self.broker._redis.delete(self.broker.key(stage))

    bench.play(Deleting)
    books = finish(bench.learner(steps=5))
    assert books["trained"] == 10 and books["in_flight"] == 0 and balanced(books)
    assert max(Counter(bench.logged()).values()) == 1


def test_a_group_too_large_to_send_is_given_up_and_its_neighbours_are_sent(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(broker, 3)
    taken = broker.read("tickets", 9, 100)
    made = [rollout(d.ticket, tokens=4000 if d.ticket.id == 1 else 4) for d in taken]
    monkeypatch.setattr(schema, "MAX_MESSAGE_BYTES", 30_000)
    assert broker.hand_over_together(list(zip(taken, made, strict=True))) == [True, False, True]
    [(_, letter)] = broker.dead_letters()
    assert (letter.id, letter.stage) == (1, "tickets") and "its rollout cannot be sent: a rollout of" in letter.reason
    assert broker.open_tickets() == {0: ("rollouts", 1), 1: ("dead", 1), 2: ("rollouts", 1)}


class Verbose:
    """An engine, or a verifier, that says far too much."""

    busy = False

    def __init__(self) -> None:
        self._orders: list[tuple[str, int]] = []

    def add(self, request_id: str, prompt_ids: list[int], *, n: int, **_: Any) -> None:
        self._orders.append((request_id, n))
        self.busy = True

    def step(self) -> list[Sampled]:
        orders, self._orders, self.busy = self._orders, [], False
        tokens = [0] * 4000
        return [
            Sampled(request, i, tokens, [-1.0] * 4000, [(4000, 0)], "length", "x", 0.1)
            for request, n in orders
            for i in range(n)
        ]

    def verify(self, items: list[Any]) -> list[Verdict]:
        return [Verdict("wrong", "x" * 4000, 1.0) for _ in items]

    def close(self) -> None:
        pass


def test_a_worker_that_makes_too_much_lives_and_its_ticket_is_given_up(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(broker, 2)
    monkeypatch.setattr(schema, "MAX_MESSAGE_BYTES", 7000)
    actor = Actor(Sections(), broker, Verbose(), threading.Event())  # type: ignore[arg-type]
    try:
        [order] = broker.read("tickets", 1, 100)
        actor._start(order)
        actor._sample()
    finally:
        actor._leases.close()
    [order] = broker.read("tickets", 1, 100)
    broker.hand_over(order, rollout(order.ticket))
    scorer = Scorer(
        Sections.model_validate({"reward": {"mode": "verifier"}}), broker, Verbose(), None, threading.Event()
    )  # type: ignore[arg-type]
    try:
        scorer._score(broker.read("rollouts", 1, 100))
    finally:
        scorer.close()
    first, second = (letter for _, letter in broker.dead_letters())
    assert (first.id, first.stage, second.id, second.stage) == (0, "tickets", 1, "rollouts")
    assert "its rollout cannot be sent" in first.reason and "its scored cannot be sent" in second.reason
    assert broker.open_tickets() == {0: ("dead", 1), 1: ("dead", 1)}
    assert not any(state["pending"] for state in broker.backlog().values()), "nobody else will try"


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("MAX_MESSAGE_BYTES", None, "message of 67,109,316 bytes is over the limit of 67,108,864"),
        ("MAX_TOKENS", 16, "has a completion of 20 tokens, the limit is 16"),
        ("MAX_TEXT_CHARS", 5, "no text of 5 characters"),
        ("MAX_COMPLETIONS", 1, "completions = 2 is outside 1 to 1"),
    ],
)
def test_a_message_over_a_limit_takes_its_ticket_along(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, limit: str, value: int | None, says: str
) -> None:
    issue(broker)
    [order] = broker.read("tickets", 1, 100)
    if value is None:
        broker._redis.hset(broker.key("open"), 0, "rollouts 1")
        put(broker, "rollouts", m=bytes(67_109_316), id=0, attempt=1)
    else:
        broker.hand_over(order, rollout(order.ticket, tokens=20))
        monkeypatch.setattr(schema, limit, value)
    assert broker.read("rollouts", 9, 100) == []
    monkeypatch.undo()
    [(_, letter)] = broker.dead_letters()
    assert (letter.id, letter.attempt) == (0, 1) and says in letter.reason
    assert broker.open_tickets() == {0: ("dead", 1)}


@pytest.mark.parametrize("hours_s", [HOURS_S, -HOURS_S])
def test_clocks_hours_apart_change_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hours_s: float
) -> None:
    monkeypatch.setattr(queue.out, "_width", 200)
    # Given a worker whose host's clock is hours ahead, or behind
    issue(broker, 2)
    other = Broker(broker.url, broker.run, "other")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + hours_s)
    [held, given_up] = other.read("tickets", 2, 100)
    other.heartbeat({"role": "actor", "waits_for": "tickets", "waits_s": 3.0})
    other.bury(given_up, "a reason", "")
    # When anybody looks, with his own clock
    monkeypatch.setattr(time, "time", real)
    assert broker.claim("tickets", 60_000, 3) == [], "its lease is as fresh as the server says"
    assert other.renew([held]) == {held.name}
    [state] = broker.processes().values()
    assert 0 <= state["heard_s"] < 30
    # Then ages are seconds; also for one whose own clock is off
    for clock in (real, lambda: real() + hours_s):
        monkeypatch.setattr(time, "time", clock)
        assert cli.main(["queue", "list", "--run", broker.run, "--url", broker.url]) == 0
        assert cli.main(["queue", "lag", "--run", broker.run, "--url", broker.url]) == 0
        shown = capsys.readouterr().out
        assert "a reason" in shown and not re.search(r"\b\d{3,} s", shown), "ages of seconds"
        assert 0 <= broker.processes()[other.consumer]["heard_s"] < 30


def spoil(broker: Broker, name: str) -> None:
    broker._redis.delete(broker.key(name))
    if KINDS[name] == "string":
        broker._redis.rpush(broker.key(name), "x")
    else:
        broker._redis.set(broker.key(name), "x")


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"learner"}))  # which is written without a look
def test_a_key_of_another_type_is_named_with_the_remedy(broker: Broker, name: str) -> None:
    incarnation = issue(broker, 2)
    [order, other] = broker.read("tickets", 2, 100)
    broker.hand_over(order, rollout(order.ticket))
    [made] = broker.read("rollouts", 1, 100)
    asked = ticket(broker.run, 9, lane="eval", incarnation=incarnation)
    store = WeightStore(broker.url, broker.run, "learner")
    uses: dict[str, Callable[[], object]] = {
        "tickets": lambda: broker.read("tickets", 1, 10),
        "rollouts": lambda: broker.hand_over(other, rollout(other.ticket)),
        "scored": lambda: broker.hand_over(made, scored(made.message)),
        "dead": broker.dead_letters,
        "open": broker.open_tickets,
        "procs": lambda: broker.heartbeat({"role": "test"}),
        "fence": lambda: broker.check_fence(incarnation),
        "policy": broker.policy,
        "issued": lambda: broker.issue(ticket(broker.run, 9, incarnation=incarnation)),
        "announced": lambda: broker.announce(policy(incarnation, 0)),
        "sigma": broker.sigma,
        "lost": broker.shadows,
        "steps": broker.steps,
        "groups": lambda: broker.remember({"step": 1}, [{"id": 1}]),
        "eval:tickets": lambda: broker.read("eval:tickets", 1, 10),
        "eval:rollouts": lambda: broker.claim("eval:rollouts", 0, 3),
        "eval:scored": lambda: broker.inherit("eval:scored", 0),
        "eval:open": lambda: broker.open_tickets("eval"),
        "eval:issued": lambda: broker.issue(asked),
        "carried": store.carried,
        "carried:fence": lambda: store.announce(Carried(policy(incarnation, 0), [])),
        "carried:at": store.at,
        "weights:wanted": store.wanted,
        "weights:parts": lambda: store.put(1, Part(0, None, 1, 1), 0, b"x"),
        "reading": store.read_now,
        "ring": store.ring,
        "ring:fence": lambda: store.announce_ring(Ring(1, "x:1", "cpu", []), incarnation),
        "ring:at": lambda: store.announce_ring(Ring(1, "x:1", "cpu", []), incarnation),
        "ring:wishes": store.wishes,
        "relays": store.relays,
        "relays:secret": store.secret,
        "model": store.definition,
    }
    spoil(broker, name)
    with pytest.raises(BrokerUnfit) as caught:
        uses[name]()
    assert f"{broker.key(name)} holds a {'list' if KINDS[name] == 'string' else 'string'}, not a" in str(caught.value)
    assert f"DEL {broker.key(name)}: the learner issues again" in str(caught.value)
    broker._redis.delete(broker.key(name))
    uses[name]()


def test_a_key_of_another_type_is_no_fault_of_a_group(broker: Broker) -> None:
    issue(broker)
    [order] = broker.read("tickets", 1, 100)
    broker.hand_over(order, rollout(order.ticket))
    spoil(broker, "sigma")
    given = Sections.model_validate({"reward": {"mode": "verifier"}, "broker": {"max_deliveries": 1}})
    scorer = Scorer(given, broker, Verbose(), None, threading.Event())  # type: ignore[arg-type]
    try:
        with pytest.raises(BrokerUnfit, match="holds a list, not a string"):
            scorer._score(broker.read("rollouts", 1, 100))
    finally:
        scorer.close()
    assert broker.dead_letters() == []


@pytest.mark.parametrize("arguments", [["lag"], ["list"], ["purge"]])
def test_hero_queue_names_a_key_of_another_type(
    broker: Broker, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    issue(broker)
    spoil(broker, "dead")
    assert cli.main(["queue", *arguments, "--run", broker.run, "--url", broker.url]) == 6
    assert f"{broker.key('dead')} holds a string, not a stream" in capsys.readouterr().err


def test_hero_queue_looks_at_a_run_without_its_streams(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    issue(broker)
    broker._redis.delete(*(broker.key(stage) for stage in GROUPS))
    assert cli.main(["queue", "lag", "--run", broker.run, "--url", broker.url]) == 0
    assert "0 dead letters" in capsys.readouterr().out
    broker._redis.xgroup_destroy(broker.key("rollouts"), "scorers")
    assert broker.backlog()["rollouts"] == {"length": 0, "lag": None, "pending": 0}


def test_a_stream_at_its_last_entry_is_named_with_the_remedy(broker: Broker) -> None:
    incarnation = issue(broker)
    broker._redis.xadd(broker.key("tickets"), {"x": "y"}, id="18446744073709551615-18446744073709551615")
    with pytest.raises(BrokerUnfit, match=r"tickets is at the last possible entry; .* DEL \{.*\}:tickets: the learner"):
        broker.issue(ticket(broker.run, 1, incarnation=incarnation))
    broker._redis.delete(broker.key("tickets"))
    assert broker.issue(ticket(broker.run, 1, incarnation=incarnation))


@pytest.mark.parametrize("value", ["abc", "", "-3", "nan", "inf", "1e300", str(10**18), b"\xff"])
def test_a_garbled_fence_is_learned_again(broker: Broker, value: str | bytes) -> None:
    broker._redis.set(broker.key("fence"), value)
    incarnation = broker.take_over(above=4)
    assert incarnation == 5 and broker.issue(ticket(broker.run, 0, incarnation=incarnation))
    for use in (
        lambda: broker.issue(ticket(broker.run, 1, incarnation=incarnation)),
        lambda: broker.announce(policy(incarnation, 0)),
        lambda: broker.close(incarnation, [(0, 1, "")]),
    ):
        broker._redis.set(broker.key("fence"), "abc")
        broker.check_fence(incarnation)
        use()
        assert broker._redis.get(broker.key("fence")) == b"5"


@pytest.mark.parametrize("value", ["abc", "", "0.7", "nan 0", "0.7 inf", "-1 0", "0.7 -1", "1e999 0", "1 2 3"])
def test_a_garbled_sigma_begins_anew(broker: Broker, value: str) -> None:
    issue(broker)
    broker._redis.set(broker.key("sigma"), value)
    with structlog.testing.capture_logs() as logs:
        assert [broker.sigma(), broker.sigma()] == [None, None]
    assert len(logs) == 1 and logs[0]["event"] == "passed over: none of ours"
    [order] = broker.read("tickets", 1, 100)
    broker.hand_over(order, rollout(order.ticket))
    [made] = broker.read("rollouts", 1, 100)
    assert broker.hand_over(made, scored(made.message, 0.5), momentum=0.9)
    assert broker.sigma() == Sigma(0.5)


FORGED_POLICY = pack(policy(9, 999, "/nowhere"))


@pytest.mark.parametrize("value", [b"junk", pack(ticket()), damaged(FORGED_POLICY), FORGED_POLICY])
def test_a_forged_policy_is_announced_over(bench: Bench, value: bytes) -> None:
    # Given actors that can load nothing but what the learner has published
    class Choosy(Player):
        forged = False

        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id == 0 and not self.forged:  # the learner publishes no step before it has groups
                self.forged = True
                self.broker._redis.set(self.broker.key("policy"), value)
            policy = self.broker.policy()
            while (policy is None or policy.folder == "/nowhere") and not self.stop.wait(0.02):
                policy = self.broker.policy()
            super().sample(order, ticket)

    bench.play(Choosy)
    books = finish(bench.learner(steps=5))
    assert books["trained"] == 10 and balanced(books)


def test_foreign_heartbeats_are_passed_over(broker: Broker, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broker.take_over()
    broker.heartbeat({"role": "actor", "step": None, "max_logprob_difference": 0.25})
    foreign: dict[Any, Any] = {
        "a": "no json",
        "b": json.dumps({"role": "actor", "time": 1}),
        "c": "1 []",
        "d": "1 " + json.dumps({"role": 7}),
        "e": "1 " + json.dumps({"role": "actor", "max_logprob_difference": "x"}),
        "f": "1 " + json.dumps({"role": "actor", "waits_s": []}),
        "g": "1 " + "[" * 100_000,
        "h": "9" * 500 + " {}",
        b"\xff": b"1 \xff",
        "i\x1b[2J": "1 " + json.dumps({"role": "\x1b]0;x\x07", "waits_for": "[/red]", "waits_s": 1}),
    }
    broker._redis.hset(broker.key("procs"), mapping=foreign)
    broker._redis.xgroup_createconsumer(broker.key("tickets"), "actors", b"\xff\x1b")
    assert set(broker.processes()) == {broker.consumer, "i\x1b[2J"}
    assert cli.main(["queue", "lag", "--run", broker.run, "--url", broker.url]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "i\\x1b[2J" in shown and "[/red]" in shown
    assert cli.main(["queue", "lag", "--json", "--run", broker.run, "--url", broker.url]) == 0
    assert len(json.loads(capsys.readouterr().out)["processes"]) == 2, "JSON and nothing else"
    assert Watch(Sections.model_validate({"run": {"folder": tmp_path}}), broker).worst_difference() == 0.25


def test_letters_cannot_steer_the_terminal_of_who_looks(
    broker: Broker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given letters whose texts are for the terminal, or for rich, and entries that are no letters
    monkeypatch.setattr(queue.out, "_width", 200)
    issue(broker)
    steering = "\x1b[2J\x1b]52;c;cm0=\x07 [/bold] \u202e [link=x]"
    [order] = broker.read("tickets", 1, 100)
    broker.bury(order, steering, steering)
    put(broker, "dead", m=b"\x1b[31m")
    put(broker, "dead", hello="\x1b[31m")
    put(broker, "dead", m=pack(schema.DeadLetter(steering, None, None, steering, steering, steering, b"\x1b")))
    entries = [entry for entry, _ in broker.dead_letters()]
    assert len(entries) == 4
    # When somebody looks at them
    for arguments in (["list"], ["list", "--json"], ["show", *entries], ["lag"], ["retry", *entries[1:]]):
        expected = 13 if arguments[0] == "retry" else 0
        assert cli.main(["queue", *arguments, "--run", broker.run, "--url", broker.url]) == expected
        shown = capsys.readouterr().out
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
        assert arguments[0] == "lag" or all(entry in shown for entry in entries[1:])
    # And they can be thrown away
    assert cli.main(["queue", "purge", "--run", broker.run, "--url", broker.url]) == 0
    assert "4 dropped" in capsys.readouterr().out and broker.dead_letters() == []


def test_a_letter_with_a_ticket_of_another_run_is_not_retried(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    issue(broker)
    put(broker, "tickets", m=pack(ticket("elsewhere", 7)))
    broker.read("tickets", 9, 100)
    [(entry, _)] = broker.dead_letters()
    assert cli.main(["queue", "retry", entry, "--run", broker.run, "--url", broker.url]) == 13
    assert "it belongs to run 'elsewhere'" in capsys.readouterr().out
    assert set(broker.open_tickets()) == {0}


def test_a_foreign_entry_in_a_full_broker_holds_nobody_up(broker: Broker) -> None:
    """The learner meets it too, and a learner that waits for room frees none."""
    put(broker, "scored", m=b"junk" * 1000)
    ended: list[list[Delivery]] = []
    reader = threading.Thread(target=lambda: ended.append(broker.read("scored", 9, 100)), daemon=True)
    try:
        broker._redis.config_set("maxmemory", "1mb")
        reader.start()
        reader.join(60)
    finally:
        broker._redis.config_set("maxmemory", "256mb")
    assert ended == [[]] and "no head" in reasons(broker)[0]
