"""The stream protocol on a real server: issue, hand-over, leases, reclaim, fencing, lag, trimming."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from common import deliveries
from common.connection import BrokerFull
from common.errors import Fenced
from common.schema import Ticket, pack, unpack
from common.server import LocalServer
from common.sigma import Sigma, next_sigma
from common.streams import Broker
from tests.make import policy, rollout, scored, ticket
from tests.until import until


def second(broker: Broker) -> Broker:
    return Broker(broker.url, broker.run, "other")


def issue(broker: Broker, count: int = 1) -> int:
    incarnation = broker.take_over()
    for id in range(count):
        assert broker.issue(ticket(broker.run, id, incarnation=incarnation))
    return incarnation


def test_a_ticket_walks_all_stages_and_is_closed(broker: Broker) -> None:
    incarnation = issue(broker)
    [order] = broker.read("tickets", 8, 100)
    assert broker.hand_over(order, rollout(order.ticket))
    [generated] = broker.read("rollouts", 8, 100)
    assert broker.hand_over(generated, scored(generated.message))
    assert broker.open_tickets() == {0: ("scored", 1)}
    [done] = broker.read("scored", 8, 100)
    broker.close(incarnation, [(0, 1, done.entry)])
    assert broker.open_tickets() == {}
    assert all(state["lag"] == 0 and state["pending"] == 0 for state in broker.backlog().values())


def test_issuing_twice_is_issuing_once(broker: Broker) -> None:
    incarnation = issue(broker)
    assert not broker.issue(ticket(broker.run, 0, incarnation=incarnation))
    assert broker.issue(ticket(broker.run, 0, attempt=2, incarnation=incarnation))
    assert len(broker.read("tickets", 8, 100)) == 2


def test_only_the_first_of_two_workers_hands_over(broker: Broker) -> None:
    issue(broker)
    [mine] = broker.read("tickets", 8, 100)
    other = second(broker)
    [robbed] = other.claim("tickets", 0, 99)
    assert robbed.deliveries == 2
    assert other.hand_over(robbed, rollout(robbed.ticket))
    assert not broker.hand_over(mine, rollout(mine.ticket)), "the late result must change nothing"
    assert not other.hand_over(robbed, rollout(robbed.ticket)), "nor a client's retry"
    assert len(broker.read("rollouts", 8, 100)) == 1


def test_an_older_attempt_is_refused(broker: Broker) -> None:
    incarnation = issue(broker)
    [first] = broker.read("tickets", 8, 100)
    broker.issue(ticket(broker.run, 0, attempt=2, incarnation=incarnation))
    assert not broker.hand_over(first, rollout(first.ticket))
    [latest] = broker.read("tickets", 8, 100)
    assert broker.hand_over(latest, rollout(latest.ticket))


def test_several_at_once_are_each_all_or_nothing(broker: Broker) -> None:
    incarnation = issue(broker)
    orders = [ticket(broker.run, id, incarnation=incarnation) for id in range(3)]
    assert broker.issue_together(orders) == [False, True, True], "the first was open already"
    taken = broker.read("tickets", 8, 100)
    other = second(broker)
    [robbed] = [d for d in other.claim("tickets", 0, 99) if d.ticket.id == 1]
    assert other.hand_over(robbed, rollout(robbed.ticket))
    assert broker.hand_over_together([(d, rollout(d.ticket)) for d in taken]) == [True, False, True]
    assert [d.ticket.id for d in broker.read("rollouts", 8, 100)] == [1, 0, 2]
    with pytest.raises(Fenced):
        broker.take_over()
        broker.issue_together([ticket(broker.run, id, incarnation=incarnation) for id in (7, 8)])
    assert broker.issue_together([]) == [] == broker.hand_over_together([])
    assert set(broker.open_tickets()) == {0, 1, 2}


def test_a_robbed_worker_cannot_renew_its_lease(broker: Broker) -> None:
    issue(broker)
    [mine] = broker.read("tickets", 8, 100)
    assert broker.renew([mine]) == {mine.name}
    other = second(broker)
    [robbed] = other.claim("tickets", 0, 99)
    assert robbed.deliveries == 2, "renewing must not count as a delivery"
    assert broker.renew([mine]) == set()
    assert other.renew([robbed]) == {robbed.name}


def test_a_message_that_keeps_failing_is_buried_with_its_reason(broker: Broker) -> None:
    issue(broker)
    broker.read("tickets", 8, 100)
    for _ in range(2):
        assert len(broker.claim("tickets", 0, 3)) == 1
    assert broker.claim("tickets", 0, 3) == []
    [(_, letter)] = broker.dead_letters()
    assert (letter.id, letter.stage) == (0, "tickets") and "3 deliveries" in letter.reason
    assert broker.open_tickets() == {0: ("dead", 1)}


def test_the_last_delivery_of_a_message_is_alone(broker: Broker) -> None:
    # Given three tickets of which one ends its worker, whoever takes it along
    issue(broker, 3)
    worker, lives = broker, 0
    worker.read("tickets", 8, 100)
    done: list[int] = []
    while len(done) < 2 and lives < 20:
        lives += 1
        worker = Broker(broker.url, broker.run, "next")
        taken = worker.claim("tickets", 0, 3)
        for delivery in [] if 1 in {d.ticket.id for d in taken} else taken:
            worker.hand_over(delivery, rollout(delivery.ticket))
            done.append(delivery.ticket.id)
    # Then the others are worked on, and it is given up
    assert sorted(done) == [0, 2] and broker.claim("tickets", 0, 3) == []
    assert [letter.id for _, letter in broker.dead_letters()] == [1]


def test_what_is_held_has_not_failed(broker: Broker) -> None:
    issue(broker, 3)
    held = {d.entry for d in broker.read("tickets", 2, 100)}
    for _ in range(5):
        assert broker.claim("tickets", 0, 3, held=held) == []
    assert [d.deliveries for d in broker.claim("tickets", 0, 3)] == [2, 2], "nobody held them, and they count"
    assert broker.dead_letters() == []


def test_no_more_is_claimed_than_there_is_room_for(broker: Broker) -> None:
    issue(broker, 70)
    broker.read("tickets", 70, 100)
    other = Broker(broker.url, broker.run, "other")
    assert [d.ticket.id for d in other.claim("tickets", 0, 9, count=2)] == [0, 1]
    assert len(other.claim("tickets", 0, 9)) == 70, "in several replies"


def test_what_is_handed_back_is_free_at_once_and_has_not_failed(broker: Broker) -> None:
    issue(broker, 3)
    held = broker.read("tickets", 3, 100)
    other = Broker(broker.url, broker.run, "other")
    [stolen] = [d for d in other.claim("tickets", 0, 9, count=1)]
    broker.release(held, 60_000)
    taken = other.claim("tickets", 60_000, 9, held={stolen.entry})
    assert [(d.ticket.id, d.deliveries) for d in taken] == [(1, 1), (2, 1)], "but not what is another's by now"
    assert other.renew([stolen, *taken]) == {d.name for d in held}


class Reading(threading.Thread):
    """Reads tickets again and again, of which there are none: one read may be over before anybody looks."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(daemon=True)
        self._broker, self._told, self._well = Broker(broker.url, broker.run, "r"), threading.Event(), False
        self.start()

    def run(self) -> None:
        while not self._told.is_set():
            assert self._broker.read("tickets", 1, 2000) == []
        self._well = True

    def end(self) -> bool:
        """Whether no read has failed."""
        self._told.set()
        self.join(60)
        return self._well


def test_a_read_goes_on_when_the_stream_is_deleted_under_it(broker: Broker) -> None:
    issue(broker)
    broker.read("tickets", 1, 100)
    reading = Reading(broker)
    until(lambda: broker._redis.info("clients")["blocked_clients"], "blocked read")
    broker._redis.delete(broker.key("tickets"))
    until(lambda: broker._redis.exists(broker.key("tickets")), "the stream that a read makes anew")
    assert reading.end()


def test_a_read_goes_on_when_the_server_ends_its_wait(broker: Broker) -> None:
    issue(broker)
    broker.read("tickets", 1, 100)
    reading = Reading(broker)

    def unblocked() -> bool:
        """As by a server that becomes a replica."""
        waiting = [one["id"] for one in broker._redis.client_list() if "b" in one["flags"]]
        return any([broker._redis.client_unblock(id, error=True) for id in waiting])

    until(unblocked, "blocked read")
    assert reading.end()


def test_how_full_the_broker_is(broker: Broker) -> None:
    assert 0 < broker.used() < 0.5
    try:
        broker._redis.config_set("maxmemory", "1mb")
        assert broker.used() > 0.8
        broker._redis.config_set("maxmemory", "0")
        assert broker.used() == 0
    finally:
        broker._redis.config_set("maxmemory", "256mb")


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"\x81\xa1v\x02", b"\x91" * 5000])
def test_foreign_bytes_become_dead_letters(broker: Broker, body: bytes) -> None:
    broker._redis.xadd(broker.key("rollouts"), {"m": body})
    broker._redis.xadd(broker.key("rollouts"), {"other": b"field"})
    assert broker.read("rollouts", 8, 100) == []
    assert all("unreadable" in letter.reason for _, letter in broker.dead_letters())
    assert len(broker.dead_letters()) == 2
    assert broker.backlog()["rollouts"]["pending"] == 0


def test_foreign_entries_among_the_dead_letters_say_so_themselves(broker: Broker) -> None:
    issue(broker)
    for fields in ({"m": b"junk"}, {"other": b"field"}):
        broker._redis.xadd(broker.key("dead"), fields)
    [held] = broker.read("tickets", 1, 100)
    broker.bury(held, "a reason", "")
    first, second, letter = (letter for _, letter in broker.dead_letters())
    assert (first.id, first.body, second.id, second.body) == (None, b"junk", None, b"")
    assert first.reason == second.reason == "unreadable letter: not a message of ours: it has no head"
    assert (letter.id, letter.reason) == (0, "a reason")


def test_a_ticket_of_another_run_is_a_dead_letter(broker: Broker) -> None:
    incarnation = broker.take_over()
    broker.issue(ticket("elsewhere", 0, incarnation=incarnation))
    assert broker.read("tickets", 8, 100) == []
    assert "elsewhere" in broker.dead_letters()[0][1].reason


def test_an_old_learner_is_fenced_off(broker: Broker) -> None:
    old = broker.take_over()
    broker.take_over()
    with pytest.raises(Fenced):
        broker.issue(ticket(broker.run, 0, incarnation=old))
    with pytest.raises(Fenced):
        broker.announce(policy(old, 1))
    with pytest.raises(Fenced):
        broker.close(old, [(0, 1, "")])


def test_sigma_moves_once_per_ticket(broker: Broker) -> None:
    spreads = (1.0, 2.0, 0.3, 7.7)
    issue(broker, len(spreads))
    assert broker.sigma() is None
    expected = None
    for sigma in spreads:
        [order] = broker.read("tickets", 1, 100)
        broker.hand_over(order, rollout(order.ticket))
        [generated] = broker.read("rollouts", 1, 100)
        for _ in range(2):  # the second is a retry
            broker.hand_over(generated, scored(generated.message, sigma), momentum=0.9)
        expected = next_sigma(expected, sigma, 0.9)
        found = broker.sigma()
        assert (found.bar, found.dev) == (
            pytest.approx(expected.bar, rel=1e-14),
            pytest.approx(expected.dev, rel=1e-14),
        )
    assert found.dev > 0
    broker.restore_sigma(Sigma(7.0, 1.0))
    assert broker.sigma() == found, "a checkpoint's value must not replace a living one"


def test_trimming_keeps_what_is_not_acknowledged_and_lag_right(broker: Broker) -> None:
    incarnation = issue(broker, 10)
    held = broker.read("tickets", 6, 100)
    for delivery in held[:2]:
        broker.hand_over(delivery, rollout(delivery.ticket))
    broker.trim()
    state = broker.backlog()["tickets"]
    assert state == {"length": 8, "lag": 4, "pending": 4}
    assert len(broker.read("tickets", 20, 100)) == 4
    assert incarnation == 1


def test_a_shadow_group_holds_nothing_back_and_what_it_lost_is_counted(broker: Broker) -> None:
    incarnation = issue(broker, 10)
    for group in ("slow", "slower"):
        broker._redis.xgroup_create(broker.key("tickets"), group, "0")
    read = {"slow": 3, "slower": 1}

    def look(group: str, count: int) -> None:
        broker._redis.xreadgroup(group, "onlooker", {broker.key("tickets"): ">"}, count=count)

    def lost() -> dict[str, int]:
        return {shadow["name"]: shadow["lost"] for shadow in broker.shadows() if shadow["stage"] == "tickets"}

    for group, count in read.items():
        look(group, count)
    for delivery in broker.read("tickets", 6, 100)[:5]:
        broker.hand_over(delivery, rollout(delivery.ticket))
    broker.trim()
    assert broker.backlog()["tickets"] == {"length": 5, "lag": 4, "pending": 1}
    assert lost() == {"slow": 5 - 3, "slower": 5 - 1}
    look("slow", 2)
    broker.close(incarnation, [(id, 1, "") for id in range(5)])
    for delivery in [*broker.claim("tickets", 0, 3), *broker.read("tickets", 4, 100)]:
        broker.hand_over(delivery, rollout(delivery.ticket))
    for _ in range(2):  # nothing is counted twice
        broker.trim()
        assert broker.backlog()["tickets"] == {"length": 1, "lag": 0, "pending": 0}, "the last one that was delivered"
        assert lost() == {"slow": 2 + 2, "slower": 4 + 4}
    assert all(shadow["pending"] for shadow in broker.shadows() if shadow["stage"] == "tickets")


@pytest.mark.parametrize("garbled", ["", "abc", "nan", "1e999"])
def test_a_garbled_count_of_a_shadow_begins_anew(broker: Broker, garbled: str) -> None:
    issue(broker, 2)
    broker._redis.xgroup_create(broker.key("tickets"), "shadow", "0")
    broker._redis.hset(broker.key("lost"), "tickets shadow", garbled)
    assert [shadow["lost"] for shadow in broker.shadows()] == [0]
    for delivery in broker.read("tickets", 2, 100):
        broker.hand_over(delivery, rollout(delivery.ticket))
    broker.trim()
    assert [shadow["lost"] for shadow in broker.shadows()] == [1]


def test_leaving_keeps_a_consumer_that_holds_messages(broker: Broker) -> None:
    issue(broker)
    [held] = broker.read("tickets", 1, 100)
    broker.leave("tickets")
    assert broker.renew([held]) == {held.name}
    broker.hand_over(held, rollout(held.ticket))
    broker.leave("tickets")
    assert broker._redis.xinfo_consumers(broker.key("tickets"), "actors") == []


def test_processes_that_are_gone_are_forgotten_when_nothing_is_left_of_them(broker: Broker) -> None:
    # Given one that was killed while it held a ticket, one that held none, and one that lives
    issue(broker)
    holding, idle, living = (second(broker) for _ in range(3))
    [held] = holding.read("tickets", 1, 100)
    for worker in (holding, idle):
        worker.read("tickets", 1, 1)
        worker.heartbeat({"role": "actor"})
    until(lambda: min(state["heard_s"] for state in broker.processes().values()) > 7, "silence")
    living.read("tickets", 1, 1)
    living.heartbeat({"role": "actor"})
    # When the learner looks
    broker.forget(6.0)
    # Then only what holds nothing is gone
    names = {c["name"] for c in broker.consumers()}
    assert holding.consumer in names and idle.consumer not in names
    assert set(broker.processes()) == {living.consumer}
    # And the other one when its ticket was taken over; the living one works on
    [taken] = living.claim("tickets", 0, 5)
    assert taken.entry == held.entry
    broker.forget(6.0)
    assert {c["name"] for c in broker.consumers()} == {living.consumer}
    assert living.hand_over(taken, rollout(taken.ticket))


def test_dead_letters_are_few_and_small_whoever_floods_the_run(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MOST_LETTERS", 5)
    issue(broker)
    [held] = broker.read("tickets", 1, 100)
    large = rollout(held.ticket, tokens=200_000)
    assert broker.hand_over(held, large)
    [made] = broker.read("rollouts", 1, 100)
    broker.bury(made, "a reason", "")
    # A large message leaves its ticket in the letter, which is all that a retry needs
    [(entry, letter)] = broker.dead_letters()
    assert isinstance(unpack(letter.body), Ticket)
    assert broker.retry(entry, letter)
    [again] = broker.read("tickets", 1, 100)
    broker.bury(again, "once more", "")
    # And the oldest letter goes, whose ticket stays dead until the learner books it
    for n in range(20):
        broker._redis.xadd(broker.key("rollouts"), {"m": b"x" * 2**19, "n": n})
    broker.read("rollouts", 99, 100)
    letters = [letter for _, letter in broker.dead_letters()]
    assert len(letters) == 5 and all(letter.id is None and len(letter.body) == 2**18 for letter in letters)
    assert broker.open_tickets() == {0: ("dead", 2)}


def test_a_full_broker_refuses_tickets_but_closes(broker: Broker) -> None:
    incarnation = issue(broker, 2)
    [order, _] = broker.read("tickets", 8, 100)
    try:
        broker._redis.config_set("maxmemory", "1mb")
        with pytest.raises(BrokerFull):
            broker.issue(ticket(broker.run, 5, incarnation=incarnation))
        broker.close(incarnation, [(1, 1, "")])
        broker.trim()
        assert broker.renew([order]) == {order.name}
    finally:
        broker._redis.config_set("maxmemory", "256mb")
    assert set(broker.open_tickets()) == {0}


def test_a_worker_goes_on_after_the_broker_lost_everything(broker: Broker) -> None:
    issue(broker)
    broker._redis.delete(*broker._redis.keys(broker.key("*")))
    assert broker.read("tickets", 1, 10) == []
    incarnation = broker.take_over()
    assert broker.issue(ticket(broker.run, 0, attempt=2, incarnation=incarnation))
    assert len(broker.read("tickets", 1, 100)) == 1


def test_waits_for_a_server_that_comes_back(server: LocalServer, run_id: str, tmp_path) -> None:
    with LocalServer(tmp_path, memory_mb=64, append_only=True) as first:
        broker = Broker(first.url, run_id, "test")
        broker.check()
        issue(broker)
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.extend(broker.read("tickets", 1, 100)))
    reader.start()
    with LocalServer(tmp_path, memory_mb=64, append_only=True):
        reader.join(20)
        assert len(found) == 1


def test_a_takeover_that_arrives_twice_fences_nobody_off(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a learner whose request was repeated, since the connection of the first one hung in a partition
    sent: list[Any] = []
    script = broker._scripts["take_over"]

    def send(**arguments: Any) -> Any:
        sent.append(arguments)
        return script(**arguments)

    monkeypatch.setitem(broker._scripts, "take_over", send)
    living = broker.take_over()
    # When that connection delivers it after all
    script(**sent[0])
    # Then the learner lives on
    broker.check_fence(living)
    # And neither does it fence off the next one
    successor = Broker(broker.url, broker.run, "test").take_over()
    assert successor == living + 1
    script(**sent[0])
    broker.check_fence(successor)


def test_tickets_that_are_issued_late_are_not_put_up_again(broker: Broker) -> None:
    incarnation = broker.take_over()
    orders = [ticket(broker.run, id, incarnation=incarnation) for id in range(3)]
    assert broker.issue_together(orders) == [True] * 3
    broker.close(incarnation, [(id, 1, "") for id in range(3)])
    # When a dead connection delivers the request once more
    assert broker.issue_together(orders) == [False] * 3
    # Then nothing is put up, but what is lost may come again as a later attempt, and what follows as it should
    assert broker.open_tickets() == {}
    assert broker.issue(ticket(broker.run, 1, attempt=2, incarnation=incarnation))
    assert broker.issue(ticket(broker.run, 3, incarnation=incarnation))
    # And a learner that fell back issues them anew
    successor = broker.take_over()
    assert broker.issue(ticket(broker.run, 2, incarnation=successor))


def test_an_announcement_that_arrives_late_takes_no_step_back(broker: Broker) -> None:
    incarnation = broker.take_over()
    checked = dict(check_ids=[np.arange(300, dtype=np.int32)], check_logprobs=[np.zeros(299, np.float32)])
    for step in (1, 10, 2):
        broker.announce(policy(incarnation, step, **checked))
    announced = broker.policy()
    assert announced and announced.step == 10
    # A learner that fell back behind it begins a branch of its own
    successor = broker.take_over()
    broker.announce(policy(successor, 5))
    announced = broker.policy()
    assert announced and (announced.incarnation, announced.step) == (successor, 5)


def test_an_old_learner_stays_fenced_off_when_the_broker_lost_everything(broker: Broker) -> None:
    old, living = broker.take_over(), broker.take_over()
    broker._redis.delete(*broker._redis.keys(broker.key("*")))
    assert broker.issue(ticket(broker.run, 0, incarnation=living)), "the living one goes on"
    with pytest.raises(Fenced):
        broker.issue(ticket(broker.run, 1, incarnation=old))
    with pytest.raises(Fenced):
        broker.check_fence(old)
    broker.check_fence(living)


def test_a_fencing_number_is_above_the_checkpoints(broker: Broker) -> None:
    assert broker.take_over(above=6) == 7
    assert broker.take_over(above=3) == 8


def test_an_unreadable_message_takes_its_ticket_along(broker: Broker) -> None:
    issue(broker, 2)
    first, _ = broker.read("tickets", 8, 100)
    broker.hand_over(first, rollout(first.ticket))
    [(_, fields)] = broker._redis.xrange(broker.key("rollouts"))
    broker._redis.xadd(broker.key("rollouts"), fields | {b"m": fields[b"m"][:-9]})  # torn on its way
    broker._redis.xtrim(broker.key("rollouts"), maxlen=1, approximate=False)
    assert broker.read("rollouts", 8, 100) == []
    [(_, letter)] = broker.dead_letters()
    assert (letter.id, letter.attempt) == (0, 1) and "unreadable" in letter.reason
    assert broker.open_tickets() == {0: ("dead", 1), 1: ("tickets", 1)}


def test_only_what_others_left_is_inherited(broker: Broker) -> None:
    issue(broker, 3)
    other = second(broker)
    [left] = other.read("tickets", 1, 100)
    [mine] = broker.read("tickets", 1, 100)
    assert broker.inherit("tickets", 60_000) == [], "its lease has not run out"
    assert [d.entry for d in broker.inherit("tickets", 0)] == [left.entry]
    assert broker.inherit("tickets", 0) == [] and broker.renew([mine, left]) == {mine.name, left.name}


def test_a_ticket_of_evaluation_walks_its_own_streams_under_the_same_number(broker: Broker) -> None:
    # Given tickets 0 of either lane
    incarnation = issue(broker)
    assert broker.issue(ticket(broker.run, 0, lane="eval", top_p=0.95, incarnation=incarnation))
    assert not broker.issue(ticket(broker.run, 0, lane="eval", top_p=0.95, incarnation=incarnation))
    assert broker.open_tickets() == broker.open_tickets("eval") == {0: ("tickets", 1)}
    # When evaluation's comes back
    [order] = broker.read("eval:tickets", 8, 100)
    assert order.ticket.top_p == 0.95 and broker.hand_over(order, rollout(order.ticket))
    [generated] = broker.read("eval:rollouts", 8, 100)
    assert broker.hand_over(generated, scored(generated.message))
    assert broker.open_tickets("eval") == {0: ("scored", 1)}
    [done] = broker.read("eval:scored", 8, 100)
    assert not broker.idle(0, "eval") and broker.idle(1, "eval") and not broker.idle(1)
    broker.close(incarnation, [(0, 1, done.entry)], "eval")
    # Then training's is where it was, and of evaluation's nothing is left
    assert broker.open_tickets("eval") == {} and broker.open_tickets() == {0: ("tickets", 1)}
    assert [d.ticket.lane for d in broker.read("tickets", 8, 100)] == ["train"]
    broker.trim()
    lengths = {stage: state["length"] for stage, state in broker.backlog().items() if stage.startswith("eval:")}
    assert lengths == {"eval:tickets": 1, "eval:rollouts": 1, "eval:scored": 1}, "the last one, as ever"


def test_several_of_evaluation_are_trimmed_and_their_workers_forgotten(broker: Broker) -> None:
    incarnation = issue(broker)
    broker.issue_together([ticket(broker.run, id, lane="eval", incarnation=incarnation) for id in range(6)])
    worker = second(broker)
    for order in worker.read("eval:tickets", 4, 100):
        worker.hand_over(order, rollout(order.ticket))
    broker.trim()
    assert broker.backlog()["eval:tickets"] == {"length": 3, "lag": 2, "pending": 0}
    until(lambda: broker._redis.xinfo_consumers(broker.key("eval:tickets"), "actors")[0]["idle"] > 20)
    broker.forget(0.01)
    assert broker.consumers() == [] and broker.backlog()["eval:tickets"] == {"length": 3, "lag": 2, "pending": 0}


def test_a_message_never_changes_its_lane(broker: Broker) -> None:
    # Given groups in a stream of the other lane, where an open ticket has their number
    incarnation = issue(broker)
    broker.issue(ticket(broker.run, 0, lane="eval", incarnation=incarnation))
    for stage, lane in (("eval:scored", "train"), ("scored", "eval")):
        group = scored(rollout(ticket(broker.run, 0, lane=lane, incarnation=incarnation)))
        broker._redis.xadd(broker.key(stage), {"m": pack(group), "id": 0, "attempt": 1})
    # Then nobody is given one
    assert broker.read("scored", 8, 100) == broker.read("eval:scored", 8, 100) == []
    reasons = {letter.stage: letter.reason for _, letter in broker.dead_letters()}
    assert "its ticket is one of eval, in the stream of scored" in reasons["scored"]
    assert "its ticket is one of train, in the stream of eval:scored" in reasons["eval:scored"]
    assert broker.open_tickets() == broker.open_tickets("eval") == {0: ("tickets", 1)}
