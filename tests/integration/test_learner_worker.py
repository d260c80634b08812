"""The learner's loop on a real server with a real, tiny policy; a thread plays actors and scorers."""

from __future__ import annotations

import dataclasses
import json
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
import torch
from transformers import AutoModelForCausalLM

from common.deliveries import Delivery
from common.errors import BrokerUnavailable, CheckpointError, DiskFull, Diverged, Fenced, ModelError
from common.lifecycle import Every
from common.schema import Rollout, Scored, Ticket, pack
from common.sigma import Sigma
from common.streams import Broker
from common.weights.folder import FILE, Draft, verify
from learner import checkpoint, room
from learner.publisher import CHECK_TOKENS
from learner.tickets import capacity
from learner.worker import Learner
from tests.integration.learning import GROUPS, PROBLEMS, Bench, Player, finish
from tests.make import rollout, scored, ticket
from tests.replay import differing
from tests.small_disk import SmallDisk
from tests.until import until


def one_turn(learner: Learner) -> bool:
    """Of the learner's loop."""
    learner._issue()
    learner._gather()
    if len(learner._ready) >= GROUPS:
        learner._train()
    learner._keep_books()
    return False


def test_a_run_from_its_first_ticket_to_its_end(bench: Bench) -> None:
    learner = bench.learner(steps=5)
    bench.play()

    books = finish(learner)

    dropped = books["dropped"]  # as stale, when the machine was busy elsewhere
    assert books == {"issued": 10 + dropped, "trained": 10, "in_flight": 0, "dropped": dropped, "dead_lettered": 0}
    assert [line["step"] for line in bench.lines()] == [1, 2, 3, 4, 5]
    assert max(line["staleness_max"] for line in bench.lines()) <= 1
    logged = Counter(bench.logged())
    assert {id for id, _ in logged} == set(range(10 + dropped)) and set(logged.values()) == {1}
    assert sum(outcome == "trained" for _, outcome in logged) == 10
    assert bench.broker.over() and bench.broker.open_tickets() == {}
    assert all(state["pending"] == 0 and state["lag"] == 0 for state in bench.broker.backlog().values())
    announced = bench.broker.policy()
    assert announced and (announced.step, announced.incarnation) == (5, 1)
    verify(Path(announced.folder) / FILE, announced.manifest)
    assert [len(ids) - 1 for ids in announced.check_ids] == [len(found) for found in announced.check_logprobs]
    assert sum(map(len, announced.check_ids)) == CHECK_TOKENS
    assert (bench.folder / "export" / "config.json").is_file()


def test_a_model_folder_at_every_so_many_steps(bench: Bench) -> None:
    bench.changes = {"export_every_steps": 2}
    learner = bench.learner(steps=5)
    bench.play()
    finish(learner)

    found = bench.folder / "exports"
    assert sorted(path.name for path in found.iterdir()) == ["step-00000002", "step-00000004"]
    second, fourth, last = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (found / "step-00000002", found / "step-00000004", bench.folder / "export")
    )
    assert all(not torch.equal(one["model.norm.weight"], other["model.norm.weight"])
               for one, other in ((second, fourth), (fourth, last)))  # fmt: skip


def test_gradients_that_stay_not_finite_end_the_run_by_name_and_lose_nothing(bench: Bench) -> None:
    bench.changes = {"max_skipped_batches": 2, "checkpoint_every_steps": 1}
    learner = bench.learner(steps=9)
    bench.play()
    next(learner._policy._policy._module.parameters()).data.fill_(float("nan"))
    learner.start()

    with pytest.raises(Diverged, match="2 batches in a row") as error:
        learner.loop()

    first, second = (learner._ledger.trained_in(step) for step in (1, 2))
    assert str(first) in str(error.value) and str(second) in str(error.value)
    [line] = bench.lines()
    assert line["skipped_steps"] == 1 and line["skipped_tickets"] == first
    kept = checkpoint.latest(bench.folder / "checkpoints")
    assert kept and kept.step == 1
    assert set(second) <= bench.broker.open_tickets().keys()


def test_where_the_time_of_a_step_went(bench: Bench) -> None:
    bench.play()
    finish(bench.learner(steps=5))  # a checkpoint every 2 steps
    parts = ["proximal", "forward", "backward", "optimizer"]
    for line in bench.lines():
        seconds = line["seconds"]
        assert set(seconds) == {*parts, "waiting", "step", "log", "publish", "checkpoint"}
        assert sum(seconds[part] for part in parts) <= seconds["step"] + 5e-4  # each is rounded
        assert line["tokens_per_second"] > 0 and "mfu" not in line  # nobody knows this CPU's peak
    # What a commit takes is in the line of the step after it.
    assert [line["step"] for line in bench.lines() if line["seconds"]["checkpoint"]] == [3, 5]


def test_actors_of_another_model_end_the_run_by_name_and_lose_nothing(bench: Bench) -> None:
    class Foreign(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            made = rollout(ticket, step=self.step)
            if self.step:  # the first batch is still of the learner's own
                foreign = [dataclasses.replace(c, ids=np.full(4, 10**6, np.int32)) for c in made.completions]
                made = dataclasses.replace(made, completions=foreign)
            self.broker.hand_over(order, made)

    learner = bench.learner(steps=9)
    bench.play(Foreign)
    learner.start()

    with pytest.raises(ModelError, match=r"the last 6 groups could not be trained on, .* 3 to 1000000"):
        learner.loop()

    dropped = {id for id, outcome in bench.logged() if outcome == "dropped: not_as_ordered"}
    assert len(dropped) >= 5 and dropped <= bench.broker.open_tickets().keys()


def test_the_best_checkpoint_stays_with_its_model(bench: Bench) -> None:
    class Peaking(Player):
        """All right in the third batch, half of them before, none after."""

        def score(self, made: Delivery, message: Rollout) -> None:
            group, step = scored(message), message.ticket.id // GROUPS
            right = 2 if step == 2 else int(step < 2)
            statuses = ["correct"] * right + ["wrong"] * (2 - right)
            self.broker.hand_over(made, dataclasses.replace(group, statuses=statuses), momentum=0.9)

    bench.changes = {"keep_best": True, "keep_checkpoints": 1, "checkpoint_every_steps": 1}
    bench.play(Peaking)
    finish(bench.learner(steps=6))

    accuracy = {line["step"]: line["accuracy"] for line in bench.lines()}
    best = max(accuracy, key=lambda step: (accuracy[step], -step))
    found = (bench.folder / "checkpoints" / "best").resolve()
    assert accuracy[best] > accuracy[6] and found.name.startswith(f"step-{best:08d}-")
    assert len(list((bench.folder / "checkpoints").glob("step-*"))) == 2
    kept = AutoModelForCausalLM.from_pretrained(found / "export")
    last = AutoModelForCausalLM.from_pretrained(bench.folder / "export")
    assert any(not torch.equal(a, b) for a, b in zip(kept.parameters(), last.parameters(), strict=True))


def test_prompts_follow_the_seeded_order(bench: Bench) -> None:
    questions: list[str] = []

    class Noting(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            questions.append(ticket.question)
            super().sample(order, ticket)

    bench.play(Noting)
    finish(bench.learner(steps=5))
    assert sorted(questions[:5]) == sorted(questions[5:10]) == sorted(p.question for p in PROBLEMS)


def test_a_learner_that_stops_consuming_stops_generation(bench: Bench) -> None:
    learner = bench.learner(steps=9)
    player = bench.play()
    learner.start()
    bound = capacity(GROUPS, max_staleness=1)
    for _ in range(5):
        learner._issue()
    until(lambda: bench.broker.backlog()["scored"]["lag"] == bound, "all that may be sampled")
    learner._issue()
    assert len(bench.broker.open_tickets()) == sum(player.seen.values()) == bound


def test_hard_prompts_come_more_often_and_a_crash_changes_none(bench: Bench) -> None:
    class Hard(Player):
        def score(self, made: Delivery, message: Rollout) -> None:
            group = scored(message)
            if message.ticket.question == PROBLEMS[3].question:
                group = dataclasses.replace(group, statuses=["wrong"] * 2)
            self.broker.hand_over(made, group, momentum=0.9)

    bench.data = {"order": "difficulty"}
    bench.play(Hard)
    first = bench.learner(steps=20)
    first.start()
    until(lambda: first._step >= 9 or one_turn(first))
    asked = {id: first._issuer._ticket(id, 1, 1, 0).question for id in first._ledger.in_flight()}

    second = bench.learner(steps=20)  # as if the first had been killed
    books = finish(second)

    lines = [json.loads(line) for line in (bench.folder / "rewards" / "rewards.jsonl").open()]
    trained = {line["id"]: line["question"] for line in lines if line["outcome"] == "trained"}
    assert books["trained"] == 40 and {id: trained[id] for id in asked if id in trained}.items() <= asked.items()
    assert len({(line["id"], line["question"]) for line in lines}) == len({line["id"] for line in lines})
    came = Counter(question for id, question in trained.items() if id >= 10)
    assert came.most_common(1)[0][0] == PROBLEMS[3].question
    assert came[PROBLEMS[3].question] > 2 * max(came[p.question] for p in PROBLEMS if p is not PROBLEMS[3])


def test_an_over_sampled_step_waits_for_no_straggler(bench: Bench) -> None:
    class Straggling(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id:
                super().sample(order, ticket)
            else:
                self.first = order

    bench.changes = {"max_staleness": 0, "over_sampling": 0.5}
    player = bench.play(Straggling)
    learner = bench.learner(steps=6)
    learner.start()
    until(lambda: learner._step == 3 or one_turn(learner))
    assert 0 in learner._ledger.in_flight()
    player.broker.hand_over(player.first, rollout(player.first.ticket, step=0))
    learner.loop()

    assert learner._ledger.drops["stale"] >= 1 and not learner._ledger.trained_in(0)
    assert 0 not in {id for step in range(1, 7) for id in learner._ledger.trained_in(step)}
    assert max(line["staleness_max"] for line in bench.lines()) == 0


def test_what_cannot_be_trained_is_dropped_with_its_reason_and_replaced(bench: Bench) -> None:
    class Late(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            made = {
                5: rollout(ticket, step=0),  # when it comes, the learner is at step 2
                6: rollout(ticket, step=57),  # of a branch that was left
                7: rollout(ticket, tokens=0),
            }
            self.broker.hand_over(order, made.get(ticket.id, rollout(ticket, step=self.step)))

    bench.play(Late)
    learner = bench.learner(steps=6)
    books = finish(learner)
    assert books == {"issued": 15, "trained": 12, "in_flight": 0, "dropped": 3, "dead_lettered": 0}
    assert learner._ledger.drops == {"stale": 1, "abandoned_branch": 1, "empty": 1}
    outcomes = dict(bench.logged())
    assert (outcomes[5], outcomes[6], outcomes[7]) == ("dropped: stale", "dropped: abandoned_branch", "dropped: empty")
    assert max(line["staleness_max"] for line in bench.lines()) <= 1


def test_groups_that_come_twice_are_trained_once(bench: Bench) -> None:
    class Twice(Player):
        def score(self, made: Delivery, message: Rollout) -> None:
            super().score(made, message)
            for _ in range(2):
                self.broker._redis.xadd(self.broker.key("scored"), {"m": pack(scored(message))})

    bench.play(Twice)
    books = finish(bench.learner(steps=4))
    assert books == {"issued": 8, "trained": 8, "in_flight": 0, "dropped": 0, "dead_lettered": 0}
    assert Counter(bench.logged()) == Counter((id, "trained") for id in range(8))
    assert bench.broker.open_tickets() == {}


def test_groups_whose_delivery_was_lost_on_the_way_are_asked_for_again(bench: Bench) -> None:
    # Given a learner whose first replies are lost after the server has booked them as delivered
    bench.play()
    learner = bench.learner(steps=5)
    read, lost = learner._broker.read, []

    def read_or_lose(*arguments: Any) -> list[Delivery]:
        found = read(*arguments)
        if len(lost) < 3:
            lost.extend(found)
            return []
        return found

    learner._broker.read = read_or_lose  # type: ignore[method-assign]
    # Then it trains on them all the same, each once
    books = finish(learner)
    assert len(lost) >= 3 and books["trained"] == 10 and books["in_flight"] == 0
    assert max(Counter(bench.logged()).values()) == 1
    assert {d.ticket.id for d in lost} <= {id for id, _ in bench.logged()}
    assert all(state["pending"] == 0 for state in bench.broker.backlog().values())


def test_a_dead_letter_is_booked_and_replaced(bench: Bench) -> None:
    class Burying(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id == 1:
                self.broker.bury(order, "cannot be sampled", "")
            elif ticket.id == 2:  # what comes of it, nobody can read
                self.broker._redis.xack(self.broker.key("tickets"), "actors", order.entry)
                self.broker._redis.hset(self.broker.key("open"), 2, "rollouts 1")
                self.broker._redis.xadd(self.broker.key("rollouts"), {"m": b"\xc1", "id": 2, "attempt": 1})
            else:
                super().sample(order, ticket)

    bench.play(Burying)
    books = finish(bench.learner(steps=3))
    assert books == {"issued": 8, "trained": 6, "in_flight": 0, "dropped": 0, "dead_lettered": 2}
    assert bench.broker.open_tickets() == {}


def test_a_dead_letter_that_somebody_drops_unread_is_booked_all_the_same(bench: Bench) -> None:
    class Dropping(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id == 1:
                self.broker.bury(order, "cannot be sampled", "")
                self.broker.drop([entry for entry, _ in self.broker.dead_letters()])
            else:
                super().sample(order, ticket)

    bench.play(Dropping)
    books = finish(bench.learner(steps=3))
    assert books == {"issued": 7, "trained": 6, "in_flight": 0, "dropped": 0, "dead_lettered": 1}
    assert bench.broker.open_tickets() == {}


def test_a_retried_ticket_is_trained_once_and_no_longer_dead(bench: Bench) -> None:
    # Given a ticket that was given up, and that the learner has booked and closed as dead-lettered
    class Retrying(Player):
        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if (ticket.id, ticket.attempt) == (1, 1):
                self.broker.bury(order, "cannot be sampled", "")
                return
            super().sample(order, ticket)
            letters = self.broker.dead_letters()
            # When somebody retries it
            if ticket.id > 4 and letters and self.broker.open_tickets().get(1) is None:
                assert self.broker.retry(*letters[0])

    bench.play(Retrying)
    learner = bench.learner(steps=8)
    books = finish(learner)
    # Then its next attempt is consumed, and the books no longer count it among the dead
    assert books["trained"] == 16 and books["dead_lettered"] == 0
    assert books["issued"] == sum(count for name, count in books.items() if name != "issued")
    [outcome] = [outcome for id, outcome in bench.logged() if id == 1]
    assert outcome in ("trained", "dropped: stale"), "one ticket more than the bound allows may make one group late"
    assert bench.broker.dead_letters() == []


def test_a_broker_that_loses_everything(bench: Bench) -> None:
    # Given a run that has lost all its keys in the middle, tickets in flight and the announced policy included
    class Losing(Player):
        lost = False

        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id == 5 and not self.lost:
                self.lost = True
                self.broker._redis.flushall()
            else:
                super().sample(order, ticket)

    player = bench.play(Losing)
    # When it goes on
    books = finish(bench.learner(steps=6))
    # Then tickets come again under their ids, as later attempts, and the books balance
    assert books["trained"] == 12 and books["in_flight"] == 0
    assert books["issued"] == sum(count for name, count in books.items() if name != "issued")
    assert any(attempt > 1 for _, attempt in player.seen) and max(player.seen.values()) == 1
    assert max(Counter(bench.logged()).values()) == 1
    announced = bench.broker.policy()
    assert announced and announced.step == 6


def stop_at(learner: Learner, step: int) -> None:
    """As SIGTERM in the middle of a run."""
    learner.start()
    train = learner._train

    def training() -> None:
        train()
        if learner._step == step:
            learner._stop.set()

    learner._train = training  # type: ignore[method-assign]
    learner.loop()
    learner.finish()


@pytest.mark.parametrize("broker_kept", [True, False])
def test_stop_and_resume(bench: Bench, broker_kept: bool) -> None:
    # Given a run that was stopped at step 3, which no checkpoint was due at
    bench.play()
    first = bench.learner(steps=6)
    stop_at(first, 3)
    assert not bench.broker.over()
    if not broker_kept:
        bench.players[0].end()
        bench.broker._redis.flushall()
        bench.play()
    # When it is resumed
    second = bench.learner(steps=6)
    books = finish(second)
    # Then steps and books go on where they were, under a new incarnation
    assert [line["step"] for line in bench.lines()] == [1, 2, 3, 4, 5, 6]
    assert books["trained"] == 12 and books["in_flight"] == 0
    assert max(Counter(bench.logged()).values()) == 1, "nothing is trained twice"
    assert second._incarnation > first._incarnation
    assert second._policy.applied_steps == 6


def test_a_crash_falls_back_to_the_checkpoint_and_the_broker(bench: Bench) -> None:
    # Given a learner that dies at step 3 without a word; its last checkpoint is of step 2
    bench.play()
    first = bench.learner(steps=6)
    first.finish = lambda: None  # type: ignore[method-assign]
    stop_at(first, 3)
    # When the next one takes over
    books = finish(bench.learner(steps=6))
    # Then step 3 is done again, and every ticket is booked once
    assert [line["step"] for line in bench.lines()] == [1, 2, 3, 3, 4, 5, 6]
    assert books["trained"] == 12
    assert books["issued"] == sum(count for name, count in books.items() if name != "issued")
    assert bench.broker.open_tickets() == {}


def test_a_checkpoint_of_another_run_is_refused(bench: Bench) -> None:
    bench.play()
    finish(bench.learner(steps=2))
    bench.broker = Broker(bench.broker.url, f"{bench.broker.run}-other", "test")
    with pytest.raises(CheckpointError, match="belongs to run"):
        bench.learner(steps=2).start()


def test_a_second_learner_fences_the_first(bench: Bench) -> None:
    # Given a learner that waits for groups
    first = bench.learner(steps=4)
    first.start()
    ended: list[BaseException] = []

    def loop() -> None:
        try:
            first.loop()
        except Fenced as error:
            ended.append(error)

    waiting = threading.Thread(target=loop)
    waiting.start()
    # When a second takes over the run
    second = bench.learner(steps=4)
    second.start()
    # Then the first ends by itself, although nothing has come that it could train on
    waiting.join(60)
    first._stop.set()
    assert ended and "a newer learner has taken over" in str(ended[0])
    # And the second, which has its tickets, comes to the end
    bench.play()
    second.loop()
    second.finish()
    assert second._ledger.audit()["trained"] == 8


def test_a_group_that_an_older_learner_took_away_is_not_acknowledged_before_it_is_trained_on(bench: Bench) -> None:
    # Given a learner that holds a group, which somebody takes over, and it from that one
    learner = bench.learner(steps=9)
    learner.start()
    bench.play()
    learner._issue()
    until(lambda: bench.broker.backlog()["scored"]["lag"] == 2 * GROUPS, "scored groups")
    learner._gather()
    assert len(learner._ready) == GROUPS
    assert len(bench.broker.inherit("scored", 0)) == GROUPS
    for delivery in learner._broker.inherit("scored", 0):
        learner._admit(delivery)
    # When it commits
    learner._commit()
    # Then the group is still in the broker, should it die now
    assert bench.broker.backlog()["scored"]["pending"] == GROUPS
    assert len(learner._ready) == GROUPS


def test_an_older_learner_does_not_refuse_what_its_successor_issued(bench: Bench) -> None:
    # Given a learner that was taken for dead, and tickets of its successor that it does not know
    old = bench.learner(steps=9)
    old.start()
    incarnation = bench.broker.take_over()
    order = ticket(bench.broker.run, 7, incarnation=incarnation)
    assert bench.broker.issue(order)
    [taken] = bench.broker.read("tickets", 1, 100)
    assert bench.broker.hand_over(taken, rollout(order))
    [made] = bench.broker.read("rollouts", 1, 100)
    assert bench.broker.hand_over(made, scored(rollout(order)))
    # When it reads their group before it has heard of the successor
    with pytest.raises(Fenced):
        old._gather()
    # Then the group is still there for that one
    assert bench.broker.dead_letters() == []
    [inherited] = bench.broker.inherit("scored", 0)
    assert inherited.ticket.id == 7


def test_groups_that_an_older_learner_took_are_taken_over(bench: Bench) -> None:
    # Given a learner that has read the first groups, and dies only after the next has started
    bench.play()
    first = bench.learner(steps=3)
    first.start()
    first._issue()
    second = bench.learner(steps=3)
    second.start()
    while len(first._ready) < GROUPS:
        first._gather()
    # When the second runs on
    second.loop()
    second.finish()
    # Then those groups are not lost, but trained on, or booked as stale by now
    books = second._ledger.audit()
    assert (books["trained"], books["in_flight"], books["dropped"]) == (6, 0, second._ledger.drops["stale"])
    assert {delivery.ticket.id for delivery in first._ready} <= {id for id, _ in bench.logged()}


def test_a_full_weights_folder_is_waited_for_and_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = Draft.write
    tries: list[str] = []

    def write(self: Draft, *given: Any) -> Any:
        version = self.folder.name
        tries.append(version)
        if version.endswith("-2") and tries.count(version) < 4:
            raise DiskFull(f"no room for the weights of {version}")
        return real(self, *given)

    monkeypatch.setattr(Draft, "write", write)
    monkeypatch.setattr(room, "RETRY_S", 0.02)
    bench.play()
    with structlog.testing.capture_logs() as logs:
        books = finish(bench.learner(steps=3))
    assert books["trained"] == 6 and len(tries) == 4 + 3
    [told] = [line for line in logs if line["event"] == "the disk is full, training waits"]
    assert "no room for the weights of" in told["why"]


def test_a_stop_while_the_weights_folder_is_full_keeps_the_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = Draft.write
    bench.play()
    first = bench.learner(steps=4)

    def write(self: Draft, *given: Any) -> Any:
        if self.folder.name.endswith("-3"):
            first._stop.set()
            raise DiskFull("full")
        return real(self, *given)

    monkeypatch.setattr(Draft, "write", write)
    first.start()
    first.loop()
    first.finish()
    monkeypatch.setattr(Draft, "write", real)
    finish(bench.learner(steps=4))
    assert [line["step"] for line in bench.lines()] == [1, 2, 3, 4], "no step was lost or repeated"


def beat(broker: Broker) -> dict[str, Any]:
    """The learner's heartbeat."""
    [found] = [state for state in broker.processes().values() if state["role"] == "learner"]
    return found


def test_training_waits_for_a_full_disk_and_goes_on(
    bench: Bench, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a run whose folder is on a disk of its own
    monkeypatch.setattr(room, "RETRY_S", 0.05)
    bench.folder = small_disk.folder / "run"
    bench.play()
    learner = bench.learner(steps=7)
    train, trained, full = learner._train, threading.Event(), threading.Event()

    def training() -> None:
        if learner._step == 3:
            trained.set()
            assert full.wait(60)
        train()

    learner._train = training  # type: ignore[method-assign]
    running = threading.Thread(target=learner.loop)
    learner.start()
    with structlog.testing.capture_logs() as logs:
        running.start()
        assert trained.wait(120)
        # When the disk is full
        small_disk.fill()
        full.set()
        until(lambda: learner._waiting.state["waits_for"] == "room on the disk", "the learner that waits")
        good = checkpoint.latest(bench.folder / "checkpoints")
        stands = learner._step
        # Then training stands, says so, to others too, and the last good checkpoint is still there
        until(lambda: beat(bench.broker)["waits_for"] == "room on the disk", "word of it")
        said = beat(bench.broker)["waits_s"]
        until(lambda: (beat(bench.broker)["waits_s"] or 0.0) > said + 0.5, "further tries")
        assert learner._step <= stands + 1 and running.is_alive()
        assert checkpoint.latest(bench.folder / "checkpoints") == good
        assert good is not None and good.step >= 2
        # And goes on by itself when there is room: no ticket is lost, and no line
        small_disk.free()
        running.join(120)
    learner.finish()
    assert learner._ledger.audit() == {
        "issued": 14 + learner._ledger.drops["stale"], "trained": 14, "in_flight": 0,
        "dropped": learner._ledger.drops["stale"], "dead_lettered": 0,
    }  # fmt: skip
    assert [line["event"] for line in logs if line["event"].startswith("the disk")][:2] == [
        "the disk is full, training waits",
        "the disk has room again",
    ]
    assert [line["step"] for line in bench.lines()] == [1, 2, 3, 4, 5, 6, 7]
    assert sum(outcome == "trained" for _, outcome in bench.logged()) == 14


def test_a_learner_that_starts_on_a_full_broker_makes_room(bench: Bench) -> None:
    # Given scored groups that a dead learner left, on a broker that takes nothing more
    first = bench.learner(steps=9)
    first.start()
    player = bench.play()
    first._issue()
    until(lambda: bench.broker.backlog()["scored"]["lag"] == 2 * GROUPS, "scored groups")
    player.end()
    bench.broker._redis.config_set("maxmemory", "1mb")
    try:
        # When another learner comes
        second = threading.Thread(target=lambda: finish(bench.learner(steps=9)), daemon=True)
        second.start()
        # Then it trains on them, checkpoints, and frees what they took
        until(lambda: bench.broker.open_tickets() == {}, "closed tickets", seconds=120)
        freed = {"length": 1, "lag": 0, "pending": 0}  # the last one, as ever
        until(lambda: bench.broker.backlog()["scored"] == freed, "freed entries")
    finally:
        bench.broker._redis.config_set("maxmemory", "256mb")
        bench.learners[-1]._stop.set()
        second.join(30)
    found = checkpoint.latest(bench.folder / "checkpoints")
    assert found is not None and found.step == 2


def test_a_learner_that_waits_for_a_disk_hears_of_its_successor(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise DiskFull("no space left")

    monkeypatch.setattr(room, "RETRY_S", 0.02)
    learner = bench.learner(steps=3)
    learner.start()
    monkeypatch.setattr(Draft, "write", full)
    bench.broker.take_over()
    with pytest.raises(Fenced):
        learner._publisher.publish(learner._incarnation, 1)


@pytest.mark.parametrize("crash", [False, True])
def test_the_record_of_a_checkpoint_makes_its_weights_again_bit_for_bit(bench: Bench, crash: bool) -> None:
    """Which ids went into which step says all: neither the order of arrival nor a crash shows in the weights."""
    groups: dict[int, Scored] = {}

    class Shuffling(Player):
        def score(self, made: Delivery, message: Rollout) -> None:
            groups[message.ticket.id] = scored(message)
            time.sleep(0.02 * (message.ticket.id % 2))
            super().score(made, message)

    bench.play(Shuffling)
    if crash:
        first = bench.learner(steps=9)
        first.start()
        while first._step < 3:  # the checkpoint has two
            first._issue()
            first._gather()
            if len(first._ready) >= GROUPS:
                first._train()
            first._keep_books()
    finish(bench.learner(steps=6))
    found = checkpoint.latest(bench.folder / "checkpoints")
    assert found is not None and found.step == 6
    assert differing(bench.settings(6), found, groups) == []
    # And it would show: one group trained into another step
    groups[0], groups[11] = groups[11], groups[0]
    assert differing(bench.settings(6), found, groups) != []


def test_a_nearly_full_broker_is_relieved_before_anybody_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a learner that has trained, is not due for a checkpoint, and waits for groups that do not come
    learner = bench.learner(steps=9)
    learner.start()
    player = bench.play()
    until(lambda: learner._issue() or learner._gather() or len(learner._ready) == GROUPS, "groups")
    learner._train()
    player.end()
    until(lambda: learner._gather() or not bench.broker.backlog()["scored"]["lag"], "the others")
    learner._ready = []
    before = learner._committer.settled
    assert before == GROUPS
    learner._gather()
    assert learner._committer.settled == before, "there is room"
    # When the broker is nearly full, then what is settled makes room
    monkeypatch.setattr(learner._broker, "used", lambda: 0.81)
    learner._high_water = Every(0.0)
    learner._gather()
    assert learner._committer.settled == 0
    found = checkpoint.latest(bench.folder / "checkpoints")
    assert found and found.step == 1


def test_sigma_outlives_the_broker_s_memory(bench: Bench) -> None:
    sigma = Sigma(0.25, 1 / 3)
    learner = bench.learner(steps=9)
    learner.start()
    bench.broker.restore_sigma(sigma)
    learner._commit()
    bench.broker._redis.delete(bench.broker.key("sigma"))
    learner._commit()
    assert bench.broker.sigma() == sigma, "it is not learned anew from one group"
    # And without any broker the checkpoint is written with it
    learner._stop.set()
    learner._broker.sigma = lambda: (_ for _ in ()).throw(BrokerUnavailable("away"))  # type: ignore[method-assign]
    learner._step = 1
    learner._commit()
    found = checkpoint.latest(bench.folder / "checkpoints")
    assert found and found.step == 1 and msgpack.unpackb(found.state)["sigma"] == [sigma.bar, sigma.dev]
    # And the next learner gives it back, bit for bit, to a broker that has none
    bench.broker._redis.delete(bench.broker.key("sigma"))
    bench.learner(steps=9).start()
    assert bench.broker.sigma() == sigma


def test_the_gate_on_the_reward_model_outlives_the_learner(bench: Bench) -> None:
    """Separate channels and the gate: the state is the checkpoint's, and the record makes the weights again."""
    groups: dict[int, Scored] = {}

    class Misled(Player):
        """The reward model ranks against the verifier at first; from ticket 6 on all are wrong."""

        def score(self, made: Delivery, message: Rollout) -> None:
            id = message.ticket.id
            statuses = ["correct" if id < 6 else "wrong", "wrong"]
            group = dataclasses.replace(scored(message), statuses=statuses, rm_scores=np.array([0.0, 1.0 + id]))
            groups[id] = group
            self.broker.hand_over(made, group, momentum=0.9)

    bench.changes = {"advantage": "gdpo", "rm_weight": 0.5, "min_rm_auroc": 0.6}
    bench.play(Misled)
    with structlog.testing.capture_logs() as logs:
        stop_at(bench.learner(steps=6), 3)
    assert any("gdpo takes verdict and score apart" in line["event"] for line in logs)
    # When the next learner meets nothing but groups that only the reward model ranks
    finish(bench.learner(steps=6))
    # Then it knows how well that did before
    lines = [json.loads(line) for line in (bench.folder / "rewards" / "rewards.jsonl").open()]
    trained = [line for line in lines if line["outcome"] == "trained"]
    assert {line["gated"] for line in trained if line["id"] < 6} == {False}
    late = [line for line in trained if line["id"] >= 6]
    assert late and all(line["gated"] for line in late)
    assert not any(c["advantage"] for line in late for c in line["completions"])
    assert bench.lines()[-1]["gated_group_share"] == 1.0 and bench.lines()[-1]["rm_auroc_running"] == 0.0
    found = checkpoint.latest(bench.folder / "checkpoints")
    assert found and msgpack.unpackb(found.state)["rm_auroc"] == 0.0
    assert differing(bench.settings(6), found, groups) == []


def test_a_dead_ticket_is_closed_by_whoever_comes_after_its_book_keeper(bench: Bench) -> None:
    # Given a learner that booked a dead ticket, made that durable, and died before it closed it
    first = bench.learner(steps=9)
    first.start()
    first._issue()
    [order] = bench.broker.read("tickets", 1, 100)
    bench.broker.bury(order, "why", "")
    first._reconciler.collect_dead(first._ledger)
    first._broker.close = lambda *_: None  # type: ignore[method-assign]
    first._commit()
    assert bench.broker.open_tickets()[order.ticket.id][0] == "dead"
    # Then the next one closes it with its first commit
    second = bench.learner(steps=9)
    second.start()
    second._compare_books()
    second._commit()
    assert order.ticket.id not in bench.broker.open_tickets()
    assert second._ledger.audit()["dead_lettered"] == 1
