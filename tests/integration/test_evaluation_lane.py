"""Evaluation beside training: rounds of a real learner on a real server; a thread plays actors and scorers."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from common.connection import BrokerFull
from common.deliveries import Delivery
from common.errors import Fenced
from common.schema import Policy, Rollout, Ticket, pack, unpack
from common.streams import Broker
from learner import checkpoint
from learner.ledger import EvaluationLedger
from learner.worker import Learner
from tests.integration.learning import Bench, Player, finish
from tests.make import rollout, scored
from tests.until import until

ASKED = 5


class Answering(Player):
    """Evaluation's problem n is answered right n times of its samples, and cut off when it is wrong."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.asked: Counter[tuple[int, int]] = Counter()
        """(id, attempt) of evaluation's tickets that came."""

    def sample(self, order: Delivery, ticket: Ticket) -> None:
        made = rollout(ticket, step=self.step)
        if ticket.lane == "eval":
            self.asked[ticket.id, ticket.attempt] += 1
            right = int(ticket.gold)
            cut = dataclasses.replace(made.completions[0], finish="length")
            samples = made.completions[:right] + [cut] * (ticket.completions - right)
            made = dataclasses.replace(made, completions=samples)
        self.broker.hand_over(order, made)

    def score(self, made: Delivery, message: Rollout) -> None:
        group = scored(message)
        if message.ticket.lane == "eval":
            statuses = ["wrong" if c.finish == "length" else "correct" for c in message.completions]
            group = dataclasses.replace(group, statuses=statuses, mode="verifier", rm_scores=None)
        self.broker.hand_over(made, group, momentum=0.9)


@pytest.fixture
def bench(broker: Broker, model: Path, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(broker, model, tmp_path)
    sets = {"small": range(ASKED - 2), "other": range(2)}
    for name, golds in sets.items():
        rows = [json.dumps({"question": f"{name} {gold} = ?", "answer": str(gold)}) for gold in golds]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    made.evaluation = {
        "data": {name: str(tmp_path / f"{name}.jsonl") for name in sets},
        "every_steps": 2,
        "samples": 2,
        "temperature": 0.6,
        "top_p": 0.95,
        "max_tokens": 8,
        "in_flight": 2,
    }
    yield made
    made.close()


def rounds(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.folder / "eval.jsonl").open()]


def balanced(books: dict[str, int]) -> bool:
    return books["issued"] == sum(count for name, count in books.items() if name != "issued")


def patient(learner: Learner, due: bool = True) -> Learner:
    """A learner that trains on when the round that runs is over, and the one that is `due`."""
    train, evaluation = learner._train, learner._evaluation

    def between_rounds() -> None:
        if not evaluation._round and not (due and evaluation.is_due(learner._step)):
            train()

    learner._train = between_rounds  # type: ignore[method-assign]
    return learner


def test_no_round_is_forgotten_while_its_policy_is_being_announced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.play(Answering)
    learner = patient(bench.learner(steps=5), due=False)
    announce = learner._broker.announce

    def late(policy: Policy) -> None:
        if policy.step in (2, 4):
            time.sleep(0.4)  # a batch takes less
        announce(policy)

    monkeypatch.setattr(learner._broker, "announce", late)
    finish(learner)
    assert [line["step"] for line in rounds(bench)] == [0, 2, 4, 5]


def test_rounds_beside_training_from_the_first_step_to_the_last(bench: Bench) -> None:
    player = bench.play(Answering)
    learner = patient(bench.learner(steps=5))
    books = finish(learner)
    lines = rounds(bench)
    assert [line["step"] for line in lines] == [0, 2, 4, 5]
    for line in lines:
        found, asked = line["eval"], line["tickets"]
        assert found["accuracy"] == pytest.approx((np.mean([0, 0.5, 1.0]) + np.mean([0, 0.5])) / 2)
        assert found["low"] < found["accuracy"] < found["high"]
        assert {name: one["problems"] for name, one in found["sets"].items()} == {"small": 3, "other": 2}
        assert found["sets"]["small"]["accuracy"] == pytest.approx(0.5)
        assert (found["problems"], found["given_up"], found["samples"]) == (ASKED, 0, 2)
        assert found["truncated_share"] == pytest.approx((2 + 1 + 0 + 2 + 1) / 10)
        assert balanced(asked) and (asked["in_flight"], asked["dropped"], asked["dead_lettered"]) == (0, 0, 0)
    assert [line["tickets"]["evaluated"] for line in lines] == [ASKED, 2 * ASKED, 3 * ASKED, 4 * ASKED]
    spans = [(line["eval"]["oldest_step"], line["eval"]["newest_step"]) for line in lines]
    assert all(line["step"] <= oldest <= newest for line, (oldest, newest) in zip(lines, spans, strict=True))
    assert spans[-1] == (5, 5)
    assert learner._evaluation.newest and learner._evaluation.newest.step == 5
    # And every problem was asked once in each round
    assert set(player.asked.values()) == {1} and len(player.asked) == 4 * ASKED
    # And nothing of it is in training
    assert books["trained"] == 10 and max(id for id, _ in bench.logged()) < books["issued"]
    assert sum(outcome == "trained" for _, outcome in bench.logged()) == 10
    assert bench.broker.open_tickets("eval") == bench.broker.open_tickets() == {}
    assert all(state["pending"] == 0 and state["lag"] == 0 for state in bench.broker.backlog().values())


def test_training_goes_on_beside_a_round_and_the_figure_spans_its_steps(bench: Bench) -> None:
    # Given an actor that keeps one problem back until the learner is two steps further
    class Slow(Answering):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if (ticket.lane, ticket.id) == ("eval", 4):
                while self.step < 2 and not self.stop.is_set():
                    self.training()
                    policy = self.broker.policy()
                    self.step = policy.step if policy else self.step
            super().sample(order, ticket)

        def training(self) -> None:
            for order in self.broker.read("tickets", 99, 10):
                super().sample(order, order.ticket)
            for made in self.broker.read("rollouts", 99, 0):
                super().score(made, made.message)  # type: ignore[arg-type]

    bench.play(Slow)
    learner = bench.learner(steps=3)
    learner.start()
    train = learner._train  # which waits for that problem at step 2, to see what is done then
    learner._train = lambda: None if learner._step == 2 and learner._evaluation._round else train()  # type: ignore[method-assign,func-returns-value]
    learner.loop()
    learner.finish()
    # Then the round of step 0 says that it spans three, and that the round of step 2 did not begin beside it
    first, last = rounds(bench)
    assert (first["step"], first["eval"]["oldest_step"], first["eval"]["newest_step"]) == (0, 0, 2)
    assert (first["passed_over"], first["abandoned"], first["eval"]["problems"]) == (1, {}, ASKED)
    assert last["step"] == 3 and last["passed_over"] == 1


def test_the_last_step_does_not_wait_for_an_older_round(bench: Bench) -> None:
    # Given a problem of the first round that nobody answers
    class Stuck(Answering):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if (ticket.lane, ticket.id) != ("eval", 1):
                super().sample(order, ticket)

    bench.play(Stuck)
    books = finish(bench.learner(steps=3))
    # Then that round is abandoned, with the reason, and the last one has all its problems
    [last] = rounds(bench)
    assert (last["step"], last["abandoned"], last["eval"]["problems"]) == (3, {"superseded": 1}, ASKED)
    assert last["drops"]["superseded"] >= 1 and balanced(last["tickets"]) and last["tickets"]["in_flight"] == 0
    assert books["trained"] == 6
    assert bench.broker.open_tickets("eval") == {}


def stop_in_the_middle(bench: Bench, learner: Learner) -> None:
    """Runs a learner until two problems of the round that runs are answered, and no further."""
    learner.start()
    while not (learner._evaluation._round and len(learner._evaluation._round.answers) >= 2):
        learner._issue()
        learner._evaluate()
        learner._gather()


class Halting(Answering):
    """Keeps the problems from `keep` on until it is told to go on."""

    keep = 3

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.kept: list[Delivery] = []
        self.go_on = threading.Event()

    def sample(self, order: Delivery, ticket: Ticket) -> None:
        if ticket.lane == "eval" and ticket.id >= self.keep and not self.go_on.is_set():
            self.kept.append(order)
        else:
            super().sample(order, ticket)

    def turn(self) -> None:
        if self.go_on.is_set():
            self.follow()
            for one in self.kept:
                super().sample(one, one.ticket)
            self.kept.clear()


@pytest.mark.parametrize("how", ["stopped", "crashed", "crashed before any checkpoint"])
def test_a_round_outlives_its_learner(bench: Bench, how: str) -> None:
    # Given a learner that ends in the middle of a round: some of it is answered, some in flight, some not yet asked
    player = bench.play(Halting)
    assert isinstance(player, Halting)
    first = bench.learner(steps=2)
    stop_in_the_middle(bench, first)
    if how != "crashed before any checkpoint":
        first._commit()
    if how == "crashed":  # one more answer, that no checkpoint has
        until(lambda: first._evaluate() or len(first._evaluation._round.answers) == 3, "third answer")  # type: ignore[union-attr]
    assert rounds(bench) == []
    # When the next one takes over
    player.go_on.set()
    second = patient(bench.learner(steps=2))
    finish(second)
    # Then the round has every problem once
    lines = rounds(bench)
    assert [line["step"] for line in lines] == [0, 2]
    for line in lines:
        assert (line["eval"]["problems"], line["eval"]["given_up"]) == (ASKED, 0)
        assert balanced(line["tickets"]) and line["tickets"]["in_flight"] == 0
    anew = how == "crashed before any checkpoint"  # no checkpoint knows of that round: it is begun again
    assert lines[-1]["drops"] == ({"abandoned_branch": len(player.asked) - 2 * ASKED} if anew else {})
    assert lines[-1]["tickets"]["evaluated"] == 2 * ASKED
    assert bench.broker.open_tickets("eval") == {}


def test_answers_of_a_branch_that_was_left_are_asked_again(bench: Bench) -> None:
    # Given an answer of step 1, and a learner that died there and resumes from step 0
    bench.play(Halting)
    first = bench.learner(steps=3)
    stop_in_the_middle(bench, first)
    first._commit()
    player = bench.players[0]
    assert isinstance(player, Halting)
    until(lambda: bool(player.kept), "a problem that is kept")  # else it may be sampled by step 0
    while first._step < 1:
        first._issue()
        first._gather()
        first._train()
    first._publisher.settle()
    player.go_on.set()
    until(
        lambda: first._issue() or [1 for versions in _versions(bench.broker) if versions[0][2] == 1],
        "answers at step 1",
    )
    # When the next learner takes over
    finish(patient(bench.learner(steps=3)))
    # Then no answer of the abandoned step 1 is in the round, whose problems are all answered
    line = rounds(bench)[0]
    assert line["step"] == 0 and line["eval"]["problems"] == ASKED
    assert any(attempt == 2 for _, attempt in player.asked)
    assert line["eval"]["newest_step"] == 0


def _versions(broker: Broker) -> list[Any]:
    entries = [fields[b"m"] for _, fields in broker._redis.xrange(broker.key("eval:scored"))]
    return [unpack(entry).rollout.completions[0].versions for entry in entries]  # type: ignore[union-attr]


def test_a_broker_that_loses_everything_loses_no_problem(bench: Bench) -> None:
    class Losing(Answering):
        lost = False

        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if (ticket.lane, ticket.id) == ("eval", 2) and not self.lost:
                self.lost = True
                self.broker._redis.flushall()
            else:
                super().sample(order, ticket)

    player = bench.play(Losing)
    finish(patient(bench.learner(steps=2)))
    assert isinstance(player, Losing)
    assert [(line["step"], line["eval"]["problems"]) for line in rounds(bench)] == [(0, ASKED), (2, ASKED)]
    assert any(attempt > 1 for _, attempt in player.asked) and max(player.asked.values()) == 1
    assert rounds(bench)[-1]["tickets"]["evaluated"] == 2 * ASKED


def test_a_problem_that_nobody_can_work_on_is_given_up_and_counted(bench: Bench) -> None:
    class Burying(Answering):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.lane == "eval" and ticket.question.startswith("small 0"):
                self.broker.bury(order, "cannot be sampled", "")
            elif ticket.lane == "eval" and ticket.question.startswith("other 0"):  # and a letter that is dropped unread
                self.broker.bury(order, "neither", "")
                self.broker.drop([entry for entry, letter in self.broker.dead_letters() if letter.reason == "neither"])
            else:
                super().sample(order, ticket)

    bench.play(Burying)
    books = finish(patient(bench.learner(steps=1)))
    lines = rounds(bench)
    assert [line["step"] for line in lines] == [0, 1]
    for n, line in enumerate(lines, 1):
        found = line["eval"]
        assert (found["problems"], found["given_up"]) == (3, 2)
        assert found["sets"]["small"]["accuracy"] == pytest.approx(0.75), "of those that were answered"
        assert line["tickets"]["dead_lettered"] == 2 * n and balanced(line["tickets"])
    assert books == {"issued": 2, "trained": 2, "in_flight": 0, "dropped": 0, "dead_lettered": 0}
    assert {letter.stage for _, letter in bench.broker.dead_letters()} == {"eval:tickets"}


def test_a_round_without_any_answer_is_abandoned(bench: Bench) -> None:
    class Burying(Answering):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.lane == "eval":
                self.broker.bury(order, "cannot be sampled", "")
            else:
                super().sample(order, ticket)

    bench.play(Burying)
    learner = bench.learner(steps=2)
    finish(learner)
    assert rounds(bench) == [] and learner._evaluation.newest is None
    assert learner._evaluation._abandoned["nothing_evaluated"] >= 1


@pytest.mark.parametrize(
    "change",
    [{"question": "another"}, {"gold": "7"}, {"top_p": 1.0}, {"temperature": 1.0}, {"max_tokens": 9}, {"step": 1}],
)
def test_an_answer_to_something_else_is_dropped(bench: Bench, change: dict[str, Any]) -> None:
    # Given a group under the id of a problem that is not what was asked: forged, or of a round of long ago
    class Forging(Answering):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if (ticket.lane, ticket.id) == ("eval", 3):
                forged = rollout(dataclasses.replace(ticket, **change))
                assert self.broker.hand_over(order, forged)
            else:
                super().sample(order, ticket)

    bench.play(Forging)
    finish(patient(bench.learner(steps=1)))
    line = rounds(bench)[0]
    assert (line["eval"]["problems"], line["eval"]["given_up"]) == (ASKED - 1, 1)
    assert line["drops"] == {"not_as_ordered": 1} and balanced(line["tickets"])


def test_groups_that_come_twice_or_that_nobody_asked_for_count_once_and_never(bench: Bench) -> None:
    class Twice(Answering):
        def score(self, made: Delivery, message: Rollout) -> None:
            super().score(made, message)
            if message.ticket.lane == "eval":
                stranger = dataclasses.replace(message.ticket, id=message.ticket.id + 10_000)
                for ticket in (message.ticket, stranger):
                    group = scored(dataclasses.replace(message, ticket=ticket))
                    self.broker._redis.xadd(self.broker.key("eval:scored"), {"m": pack(group)})

    bench.play(Twice)
    finish(patient(bench.learner(steps=1)))
    for n, line in enumerate(rounds(bench), 1):
        assert line["eval"]["problems"] == ASKED and line["tickets"]["evaluated"] == n * ASKED
    assert all("was never issued" in letter.reason for _, letter in bench.broker.dead_letters())
    assert len(bench.broker.dead_letters()) >= ASKED


@pytest.mark.parametrize("later", [{"samples": 1}, {"temperature": 1.0}, {"every_steps": 0}, {"problems": 1}])
def test_a_round_of_other_settings_is_abandoned(bench: Bench, later: dict[str, Any]) -> None:
    # Given a learner that stopped in the middle of a round
    player = bench.play(Halting)
    assert isinstance(player, Halting)
    first = bench.learner(steps=2)
    stop_in_the_middle(bench, first)
    first._commit()
    # When it is resumed with another evaluation, or with none
    player.go_on.set()
    bench.evaluation |= later
    second = bench.learner(steps=2)
    finish(second)
    # Then what was begun is dropped, and counted
    evaluation = second._evaluation
    assert evaluation._abandoned["other_settings"] == 1 and evaluation._ledger.drops["other_settings"] >= 1
    assert balanced(evaluation._ledger.audit()) and evaluation._ledger.audit()["in_flight"] == 0
    if later.get("every_steps") == 0:
        assert rounds(bench) == []
    else:
        assert rounds(bench)[-1]["step"] == 2
    assert bench.broker.open_tickets("eval") == {}


def test_a_run_without_evaluation_asks_nothing(bench: Bench) -> None:
    bench.evaluation["every_steps"] = 0
    player = bench.play(Answering)
    finish(bench.learner(steps=2))
    assert isinstance(player, Answering) and not player.asked
    assert not (bench.folder / "eval.jsonl").exists()


def test_the_newest_figure_is_in_the_checkpoint(bench: Bench) -> None:
    bench.play(Answering)
    first = patient(bench.learner(steps=2))
    finish(first)
    found = checkpoint.latest(bench.folder / "checkpoints")
    assert found is not None
    state = msgpack.unpackb(msgpack.unpackb(found.state)["evaluation"], strict_map_key=False)
    assert EvaluationLedger.restored(state["ledger"]).audit()["evaluated"] == 2 * ASKED
    second = bench.learner(steps=2)
    second.start()
    assert second._evaluation.newest == first._evaluation.newest is not None
    assert not second._evaluation.unfinished(2)


def test_an_older_learner_can_neither_ask_nor_refuse(bench: Bench) -> None:
    old = bench.learner(steps=9)
    old.start()
    bench.broker.take_over()
    with pytest.raises(Fenced):
        old._evaluation.turn(0, 0)


def test_a_full_broker_is_waited_for(bench: Bench) -> None:
    learner = bench.learner(steps=9)
    learner.start()
    bench.broker._redis.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(BrokerFull):
            learner._evaluation.turn(0, 0)
    finally:
        bench.broker._redis.config_set("maxmemory", "256mb")
    learner._evaluation.turn(0, 0)
    assert len(learner._evaluation._ledger.in_flight()) == 2
