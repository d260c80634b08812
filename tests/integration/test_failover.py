"""Real Sentinels that fail a primary over under load, and a real cluster of three nodes."""

from __future__ import annotations

import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from common.lifecycle import die_with_parent
from common.schema import Ticket
from common.server import find_server
from common.streams import Broker, Delivery
from tests import make
from tests.integration.learning import Bench, Player, finish
from tests.until import until

NODES, SENTINELS = 3, 3
SLOTS = 16384
pytestmark = pytest.mark.timeout(300)


def free_ports(count: int) -> list[int]:
    """Ports of which the ten thousandth above exists too: a cluster's nodes talk there."""
    held: list[socket.socket] = []
    ports: list[int] = []
    while len(ports) < count:
        held.append(socket.socket())
        held[-1].bind(("127.0.0.1", 0))
        if (port := held[-1].getsockname()[1]) < 55_000:
            ports.append(port)
    for one in held:
        one.close()
    return ports


def settled(condition: Callable[[], object], what: str) -> None:
    until(condition, what, seconds=30.0, passing=(redis.RedisError,))


class Servers:
    """Server processes on ports of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = find_server()[0]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, port: int, *arguments: str) -> redis.Redis:
        home = self._folder / str(port)
        home.mkdir()
        with (home / "log").open("wb") as out:
            self.processes[port] = subprocess.Popen(
                [self._binary, *arguments, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)],
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent,
            )
        client = redis.Redis(port=port)
        settled(client.ping, f"server on port {port}")
        return client

    def kill(self, port: int) -> None:
        self.processes[port].kill()
        self.processes[port].wait()

    def close(self) -> None:
        for port in self.processes:
            self.kill(port)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    made.close()


def test_a_primary_is_killed_under_load(servers: Servers, model: Path, tmp_path: Path, run_id: str) -> None:
    # Given a primary with a replica, watched by three Sentinels
    ports = free_ports(2 + SENTINELS)
    (primary, replica), watchers = ports[:2], ports[2:]
    first = servers.start(primary, "--save", "")
    servers.start(replica, "--save", "", "--replicaof", "127.0.0.1", str(primary))
    settled(lambda: first.info("replication")["connected_slaves"] == 1, "replica")
    for port in watchers:
        file = tmp_path / f"sentinel-{port}.conf"
        file.write_text(
            f"sentinel monitor hero 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds hero 500\n"
            "sentinel failover-timeout hero 3000\n"
        )
        servers.start(port, str(file), "--sentinel")
    sentinel = redis.Redis(port=watchers[0])
    settled(lambda: sentinel.sentinel_master("hero")["num-other-sentinels"] == SENTINELS - 1, "Sentinels that know all")
    hosts = ",".join(f"127.0.0.1:{port}" for port in watchers)
    broker = Broker(f"redis+sentinel://{hosts}/hero", run_id, "test")
    broker.check()

    # When the primary dies in the middle of a run
    class Striking(Player):
        struck = False

        def sample(self, order: Delivery, ticket: Ticket) -> None:
            if ticket.id == 5 and not self.struck:
                self.struck = True
                servers.kill(primary)
            super().sample(order, ticket)

    bench = Bench(broker, model, tmp_path)
    try:
        bench.play(Striking)
        books = finish(bench.learner(steps=6))
    finally:
        bench.close()

    # Then the run goes on at the replica; what replication had not carried over came again, and nothing twice
    assert sentinel.sentinel_master("hero")["port"] == replica
    assert books["trained"] == 12 and books["in_flight"] == 0
    assert books["issued"] == sum(count for name, count in books.items() if name != "issued")
    assert max(Counter(bench.logged()).values()) == 1


@pytest.fixture
def cluster(servers: Servers) -> str:
    """The address of three nodes with a third of the slots each."""
    ports = free_ports(NODES)
    clients = [
        servers.start(port, "--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        for port in ports
    ]
    for number, client in enumerate(clients):
        start, end = number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1
        client.execute_command("CLUSTER ADDSLOTSRANGE", start, end)
        client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])
    for client in clients:
        settled(
            lambda client=client: (
                client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
                and client.execute_command("CLUSTER INFO")["cluster_known_nodes"] == str(NODES)
            ),
            "cluster",
        )
    return f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"


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
