"""Real Sentinels that fail a primary over under load, and a real cluster of three nodes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.deliveries import Delivery
from common.schema import Ticket
from common.server import LocalServer
from common.streams import Broker
from tests import make
from tests.integration.learning import Bench, Player, finish
from tests.servers import Nodes, Watched

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path / "servers", memory_mb=64)
    yield made
    made.stop()


def test_a_primary_is_killed_under_load(watched: Watched, model: Path, tmp_path: Path, run_id: str) -> None:
    # Given a primary with a replica, watched by three Sentinels
    primary, replica = watched.ports
    assert watched.primary == primary
    broker = Broker(watched.url, run_id, "test")
    broker.check()

    # When the primary dies in the middle of a run
    class Striking(Player):
        struck = False

        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id == 5 and not self.struck:
                self.struck = True
                watched.servers.kill(primary)
            super().sample(order, ticket)

    bench = Bench(broker, model, tmp_path)
    try:
        bench.play(Striking)
        books = finish(bench.learner(steps=6))
    finally:
        bench.close()

    # Then the run goes on at the replica; what replication had not carried over came again, and nothing twice
    assert watched.primary == replica
    assert books["trained"] == 12 and books["in_flight"] == 0
    assert books["issued"] == sum(count for name, count in books.items() if name != "issued")
    assert max(Counter(bench.logged()).values()) == 1


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Three nodes with a third of the slots each."""
    made = Nodes(tmp_path / "servers", memory_mb=64)
    yield made
    made.stop()


@pytest.fixture
def cluster(nodes: Nodes) -> str:
    return nodes.url


def test_a_cluster_whose_nodes_are_restarted_is_waited_for(nodes: Nodes, run_id: str) -> None:
    broker = Broker(nodes.url, run_id, "test")
    broker.check()
    incarnation = broker.take_over()
    ended: list[BaseException] = []
    over = threading.Event()

    def work() -> None:
        try:
            while not over.is_set():
                broker.heartbeat({"role": "test"})
                broker.read("tickets", 1, 50)
        except BaseException as error:
            ended.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    nodes.restart()  # until they agree again, those that are there say that the cluster is down
    assert broker.issue(make.ticket(run_id, 0, incarnation=incarnation))
    over.set()
    worker.join(30)
    assert ended == [] and not worker.is_alive()


def test_a_server_that_has_become_a_replica_is_waited_for(server: LocalServer, broker: Broker) -> None:
    broker._redis.replicaof("127.0.0.1", 1)
    incarnation: list[int] = []
    learner = threading.Thread(target=lambda: incarnation.append(broker.take_over()))
    try:
        learner.start()
        learner.join(0.3)
        assert learner.is_alive()
    finally:
        broker._redis.replicaof("NO", "ONE")
    learner.join(60)
    assert incarnation == [1]


def test_a_whole_run_on_a_cluster(cluster: str, model: Path, tmp_path: Path, run_id: str) -> None:
    broker = Broker(cluster, run_id, "test")
    broker.check()
    bench = Bench(broker, model, tmp_path)
    try:
        bench.play()
        books = finish(bench.learner(steps=5))
    finally:
        bench.close()
    assert books["trained"] == 10 and books["in_flight"] == 0
    assert bench.broker.open_tickets() == {}
    assert all(state["pending"] == 0 and state["lag"] == 0 for state in bench.broker.backlog().values())


def test_leases_and_dead_letters_on_a_cluster(cluster: str, run_id: str) -> None:
    first, second = (Broker(cluster, run_id, "test") for _ in range(2))
    first.check()
    incarnation = first.take_over()
    first.issue_together([make.ticket(run_id, id, incarnation=incarnation) for id in (0, 1)])
    held = first.read("tickets", 2, 100)
    assert len(held) == 2 and second.claim("tickets", 0, 5) != []
    assert first.renew(held) == set(), "robbed"
    taken = second.claim("tickets", 0, 5)
    assert second.hand_over_together([(d, make.rollout(d.ticket)) for d in taken]) == [True, True]
    assert first.hand_over_together([(d, make.rollout(d.ticket)) for d in held]) == [False, False]
    [one, _] = second.read("rollouts", 2, 100)
    second.bury(one, "why", "")
    [(entry, letter)] = first.dead_letters()
    assert first.retry(entry, letter) and first.open_tickets()[letter.id or 0] == ("tickets", 2)
    first.trim()
    first.leave("tickets")
