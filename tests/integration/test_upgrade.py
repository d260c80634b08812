"""Two releases at work on one run: what either reads, what is left to the newer one, and workers that change over."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common import schema
from common.deliveries import TRIED_BY, Delivery
from common.errors import NewerWire
from common.schema import OLDEST_WIRE, WIRE_VERSION, Carried, DeadLetter, Frozen, Part, Ring, Ticket, pack, unpack
from common.streams import Broker
from tests.integration.learning import Bench, Player, finish
from tests.make import policy, rollout, scored, ticket
from tests.until import until

RECORDED = Path(__file__).parents[1] / "wire_5.json"
"""Every message of wire 5, as the last release that wrote nothing else packed it: {kind: base64}."""


def test_messages_of_the_wire_before_mean_what_they_meant() -> None:
    found = {kind: unpack(base64.b64decode(text)) for kind, text in json.loads(RECORDED.read_text()).items()}
    order = ticket("upgrade", 7)
    checks = {"check_ids": [np.array([1, 2, 3], np.int32)], "check_logprobs": [np.array([-0.5, -0.25], np.float32)]}
    announced = policy(2, 3, **checks)
    for message in (
        order,
        rollout(order),
        scored(rollout(order)),
        announced,
        Carried(announced, [Part(2, None, 3, 100), Part(3, 2, 1, 10)]),
        DeadLetter("rollouts", 7, 1, "why", "trace", "scorer-a", pack(rollout(order))),
    ):
        assert repr(found.pop(message.KIND)) == repr(message)
    assert not found


def test_what_the_wire_before_can_say_goes_out_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = policy(frozen=Frozen(policy().manifest, "/frozen", 2.0))
    plain = [ticket(), rollout(ticket()), scored(rollout(ticket())), policy(), Carried(policy(), [])]
    newer = [adapters, Carried(adapters, [], Part(0, None, 1, 1, frozen=True)), Ring(1, "a:1", "cpu", [])]
    assert {pack(message)[4] for message in plain} == {OLDEST_WIRE}
    assert {pack(message)[4] for message in newer} == {WIRE_VERSION}
    monkeypatch.setattr(schema, "WIRE_VERSION", OLDEST_WIRE)
    for message in plain:
        unpack(pack(message))
    for message in newer:
        with pytest.raises(NewerWire, match="upgrade"):
            unpack(pack(message))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Everything that is packed needs a reader of a later release, until `undo`: those here are older meanwhile."""
    monkeypatch.setattr(schema, "_understood_since", lambda _: WIRE_VERSION + 1)
    yield monkeypatch


def test_a_message_of_a_later_release_is_left_to_who_can_read_it(broker: Broker, later: pytest.MonkeyPatch) -> None:
    # Given tickets of a later release, and one that all can read
    incarnation = broker.take_over()
    broker.issue_together([ticket(broker.run, id, incarnation=incarnation) for id in (0, 1)])
    later.undo()
    broker.issue(ticket(broker.run, 2, incarnation=incarnation))
    # When an older worker reads
    assert [d.ticket.id for d in broker.read("tickets", 9, 100)] == [2]
    # Then the others are there for a newer one, and not given up
    assert broker.backlog()["tickets"]["pending"] == 3 and broker.dead_count() == 0
    with pytest.MonkeyPatch.context() as newer:
        newer.setattr(schema, "WIRE_VERSION", WIRE_VERSION + 1)
        other = Broker(broker.url, broker.run, "newer")
        assert sorted(d.ticket.id for d in other.claim("tickets", 0, 3)) == [0, 1, 2]


def test_what_nobody_can_read_is_given_up_in_the_end(broker: Broker, later: pytest.MonkeyPatch) -> None:
    broker.issue(ticket(broker.run, 0, incarnation=broker.take_over()))
    later.undo()
    broker.read("tickets", 9, 100)
    for _ in range(TRIED_BY - 1):
        assert broker.dead_count() == 0
        assert broker.claim("tickets", 0, 99) == []
    [(_, letter)] = broker.dead_letters()
    assert letter.id == 0 and "upgrade" in letter.reason and broker.open_tickets() == {0: ("dead", 1)}


def test_scorers_change_over_while_a_run_trains(broker: Broker, model: Path, tmp_path: Path) -> None:
    settings = tmp_path / "scorer.json"
    scoring = {"reward": {"mode": "verifier"}, "verifier": {"children": 1}, "broker": {"claim_after_ms": 2000}}
    settings.write_text(json.dumps(scoring))
    bench = Bench(broker, model, tmp_path)
    running: list[subprocess.Popen[bytes]] = []

    def scorer(module: str) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", module, "scorer", str(settings), "--run.id", broker.run]
        running.append(subprocess.Popen(arguments, env=os.environ | {"REDIS_URL": broker.url}))
        return running[-1]

    class ChangingOver(Player):
        def play_scorers(self) -> None:
            """The scorers are real."""

        def sample(self, order: Delivery, of: Ticket) -> None:
            if order.ticket.id == 6:  # the old one has scored those before
                self.change_over()
            super().sample(order, of)

        def change_over(self) -> None:
            new = scorer("deploy.cli")
            until(lambda: any(f"-{new.pid}-" in name for name in broker.processes()), "the new scorer", seconds=180)
            old.send_signal(signal.SIGTERM)
            assert old.wait(60) == 0

    try:  # what was ordered from then on only the new one can have scored
        broker.check()
        old = scorer("tests.integration.older")
        bench.play(ChangingOver)
        books = finish(bench.learner(6))
        assert books["trained"] == 12 and books["dead_lettered"] == 0 and books["dropped"] == 0
    finally:
        bench.close()
        for one in running:
            one.kill()
            one.wait(30)
