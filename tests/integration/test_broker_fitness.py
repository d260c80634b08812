"""A broker that is down, too old, evicting, a replica or full: told with the remedy, or waited for."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from common import address, connection
from common.connection import BrokerFull
from common.errors import BrokerUnavailable, BrokerUnfit
from common.server import LocalServer
from common.streams import Broker
from tests.chaos.proxy import Proxy
from tests.make import rollout, ticket
from tests.small_disk import SmallDisk
from tests.until import until


class FakeServer(socketserver.ThreadingTCPServer):
    """Speaks just enough RESP to answer INFO with a text of our own."""

    allow_reuse_address = True
    daemon_threads = True
    info = ""
    refusal = ""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            assert isinstance(self.server, FakeServer)
            while line := self.rfile.readline():
                parts = []
                for _ in range(int(line[1:])):
                    size = int(self.rfile.readline()[1:])
                    parts.append(self.rfile.read(size + 2)[:-2])
                if self.server.refusal:
                    self.wfile.write(f"-{self.server.refusal}\r\n".encode())
                elif parts[0].upper() == b"INFO":
                    body = self.server.info.encode()
                    self.wfile.write(b"$%d\r\n%s\r\n" % (len(body), body))
                elif parts[0].upper() == b"HELLO":
                    self.wfile.write(b"-ERR unknown command\r\n")
                else:
                    self.wfile.write(b"+OK\r\n")


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(("127.0.0.1", 0), FakeServer.Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


def broker_of(fake: FakeServer) -> Broker:
    return Broker(f"redis://127.0.0.1:{fake.server_address[1]}/0?protocol=2", "r", "test")


def info(**changes: str) -> str:
    fields = {"redis_version": "7.2.0", "role": "master", "maxmemory_policy": "noeviction"} | changes
    return "\r\n".join(f"{name}:{value}" for name, value in fields.items()) + "\r\n"


def test_a_server_that_is_fit(fake: FakeServer) -> None:
    fake.info = info()
    assert broker_of(fake).check() == "7.2.0"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"redis_version": "6.2.14"}, "is version 6.2.14; consumer group lag needs Redis >= 7.0 or Valkey"),
        ({"redis_version": "5.0"}, "is version 5.0"),
        ({"maxmemory_policy": "allkeys-lru"}, "run CONFIG SET maxmemory-policy noeviction"),
        ({"role": "slave"}, "is a slave; connect to the primary"),
    ],
)
def test_an_unfit_server_is_refused_with_the_remedy(fake: FakeServer, changes: dict[str, str], says: str) -> None:
    fake.info = info(**changes)
    with pytest.raises(BrokerUnfit) as caught:
        broker_of(fake).check()
    assert says in str(caught.value) and "127.0.0.1" in str(caught.value)


def test_a_server_that_wants_a_login(fake: FakeServer) -> None:
    fake.refusal = "NOAUTH Authentication required."
    with pytest.raises(BrokerUnavailable, match="set user and password in the URL"):
        broker_of(fake).check()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/broker.sock"])
def test_a_server_that_is_down(url: str) -> None:
    with pytest.raises(BrokerUnavailable, match=r"no broker answers at .*start it, or set broker\.url or REDIS_URL"):
        Broker(url, "r", "test").check()


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:notaport"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(BrokerUnavailable, match=r"broker\.url = .*e\.g\. redis://host:6379/0"):
        Broker(url, "r", "test").check()


def test_a_real_server_that_evicts(broker: Broker, server: LocalServer) -> None:
    broker._redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(BrokerUnfit, match="evicts keys when full"):
            Broker(server.url, "another", "test").check()
    finally:
        broker._redis.config_set("maxmemory-policy", "noeviction")


def test_a_full_server_is_back_pressure_and_work_goes_on_when_there_is_room(broker: Broker) -> None:
    # Given a worker with a finished group, and a server without room for it
    incarnation = broker.take_over()
    broker.issue(ticket(broker.run, 0, incarnation=incarnation))
    [order] = broker.read("tickets", 1, 100)
    handed_over: list[bool] = []
    worker = threading.Thread(target=lambda: handed_over.append(broker.hand_over(order, rollout(order.ticket))))
    try:
        broker._redis.config_set("maxmemory", "1mb")
        # When it hands over
        worker.start()
        worker.join(0.2)
        # Then it waits, while the learner is told at once, since only a checkpoint of its own makes room
        assert worker.is_alive() and handed_over == []
        with pytest.raises(BrokerFull, match="is at maxmemory"):
            broker.issue(ticket(broker.run, 1, incarnation=incarnation))
    finally:
        broker._redis.config_set("maxmemory", "256mb")
    # And it goes on by itself when there is room
    worker.join(60)
    assert handed_over == [True]
    assert len(broker.read("rollouts", 1, 100)) == 1


@pytest.mark.parametrize("groups", [1, 3])
def test_a_server_without_its_replicas_is_waited_for(broker: Broker, groups: int) -> None:
    incarnation = broker.take_over()
    broker.issue_together([ticket(broker.run, id, incarnation=incarnation) for id in range(groups)])
    results = [(order, rollout(order.ticket)) for order in broker.read("tickets", groups, 100)]
    handed_over: list[bool] = []
    worker = threading.Thread(target=lambda: handed_over.extend(broker.hand_over_together(results)))
    try:
        broker._redis.config_set("min-replicas-to-write", "1")
        worker.start()
        worker.join(0.5)
        assert worker.is_alive()
    finally:
        broker._redis.config_set("min-replicas-to-write", "0")
    worker.join(60)
    assert handed_over == [True] * groups


def test_a_server_that_starts_anew_between_a_script_and_its_call(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, losses = broker._redis.script_load, iter([True, True])

    def load_in_vain(script: str) -> str:
        name: str = load(script)
        if next(losses, False):
            broker._redis.script_flush()
        return name

    monkeypatch.setattr(broker._redis, "script_load", load_in_vain)
    broker._redis.script_flush()
    assert broker.issue(ticket(broker.run, 0, incarnation=broker.take_over()))
    assert next(losses, None) is None


def test_a_learner_that_issues_waits_for_a_server_that_comes_back(tmp_path: Path, run_id: str) -> None:
    server = LocalServer(tmp_path, 64, append_only=True)
    broker = Broker(server.url, run_id, "test")
    broker.check()
    incarnation = broker.take_over()
    issued: list[bool] = []
    learner = threading.Thread(target=lambda: issued.append(broker.issue(ticket(run_id, 0, incarnation=incarnation))))
    server.stop()
    learner.start()
    learner.join(0.3)
    assert learner.is_alive() and issued == []
    with LocalServer(tmp_path, 64, append_only=True):
        learner.join(60)
    assert issued == [True]


def test_a_server_whose_disk_is_full_is_waited_for(small_disk: SmallDisk, run_id: str) -> None:
    # Given a server that keeps its data in a file
    with LocalServer(small_disk.folder, 64, append_only=True) as server:
        broker = Broker(server.url, run_id, "test")
        broker.check()
        order = ticket(run_id, 0, incarnation=broker.take_over())
        # When there is no room for that file
        small_disk.fill()
        issued: list[bool] = []
        learner = threading.Thread(target=lambda: issued.append(broker.issue(order)))

        def refused() -> bool:
            """What it cannot keep still succeeds until it has tried to write it, which may take it seconds."""
            with suppress(redis.RedisError):
                return not broker._redis.set("ballast", "x" * 10_000)
            return True

        until(refused, "server that has met its full disk")
        learner.start()
        learner.join(0.5)
        # Then whoever writes waits
        assert learner.is_alive() and issued == []
        # And goes on when there is
        small_disk.free()
        learner.join(60)
        assert issued == [True]


@pytest.mark.parametrize("scheme", ["redis://{}/0", "redis+sentinel://{}/primary"])
def test_a_silent_server_delays_a_stop_by_one_read(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker that talks to a server behind a partition: its connections are taken, and nothing comes back
    monkeypatch.setattr(address, "READ_TIMEOUT_S", 1)
    monkeypatch.setattr(address, "CONNECT_TIMEOUT_S", 1)
    monkeypatch.setattr(connection.Connection, "patience_s", 0.5)
    stop = threading.Event()
    ended: list[BaseException] = []

    def beat() -> None:
        try:
            broker.heartbeat({"role": "test"})
        except BrokerUnavailable as error:
            ended.append(error)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = Broker(scheme.format(f"127.0.0.1:{silent.getsockname()[1]}"), "r", "test", stop=stop)
        worker = threading.Thread(target=beat)
        worker.start()
        worker.join(0.2)
        assert worker.is_alive()
        # When it is told to stop
        stop.set()
        worker.join(30)
        # Then it does not try on for minutes
        assert not worker.is_alive() and "no broker answers" in str(ended[0])


def test_a_wait_for_room_is_told_and_ends_when_the_worker_is_told_to_stop(
    broker: Broker, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SAY_AFTER_S", 0.05)
    monkeypatch.setattr(connection.Connection, "patience_s", 0.5)
    stop = threading.Event()
    other = Broker(server.url, broker.run, "test", stop=stop)
    broker.issue(ticket(broker.run, 0, incarnation=broker.take_over()))
    [order] = other.read("tickets", 1, 100)
    ended: list[BaseException] = []

    def publish() -> None:
        try:
            other.hand_over(order, rollout(order.ticket))
        except BrokerUnavailable as error:
            ended.append(error)

    worker = threading.Thread(target=publish)
    try:
        broker._redis.config_set("maxmemory", "1mb")
        worker.start()
        worker.join(0.2)
        assert worker.is_alive()
        until(lambda: broker.processes(), "heartbeat of one that waits")
        state = broker.processes()[other.consumer]
        assert state["waits_for"] == "room in the broker: hand_over" and 0 < state["waits_s"] < 60
        assert "checkpointed and trimmed" in state["waits_until"] and state["role"] == "starting"
        stop.set()
        worker.join(60)
    finally:
        broker._redis.config_set("maxmemory", "256mb")
    assert not worker.is_alive() and isinstance(ended[0], BrokerFull)


def test_a_connection_that_is_cut_does_not_end_a_drain(
    broker: Broker, server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that was told to stop and has a result left
    monkeypatch.setattr(connection.Connection, "patience_s", 60.0)
    proxy = Proxy(tmp_path / "p", server.socket)
    stop = threading.Event()
    draining = Broker(proxy.url, broker.run, "test", stop=stop)
    broker.issue(ticket(broker.run, 0, incarnation=broker.take_over()))
    [order] = draining.read("tickets", 1, 100)
    stop.set()
    # When its connection is cut while it hands over
    proxy.cut()
    draining.hand_over(order, rollout(order.ticket))
    # Then the result is there all the same
    assert broker.open_tickets() == {0: ("rollouts", 1)}
    # And a server that is gone for good holds it for a bounded time
    proxy.close()
    monkeypatch.setattr(connection.Connection, "patience_s", 0.3)
    (tmp_path / "p").unlink()
    draining._redis.connection_pool.disconnect()
    with pytest.raises(BrokerUnavailable, match="no broker answers"):
        draining.sigma()
