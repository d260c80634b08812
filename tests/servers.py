"""Servers on ports of this machine: behind Sentinels, or as a cluster."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.lifecycle import die_with_parent
from common.server import find_server
from tests.until import until

NODES, SENTINELS = 3, 3
SLOTS = 16384
NAME = "hero"
DOWN_AFTER_MS = 3000
"""Longer than a busy machine keeps a server that lives from its turn."""


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
    until(condition, what, seconds=60.0, passing=(redis.RedisError,))


class Servers:
    """Server processes by port; each has a folder, which it finds again when it is started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = find_server()[0]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, port: int, *arguments: str, **login: str) -> redis.Redis:
        home = self._folder / str(port)
        home.mkdir(parents=True, exist_ok=True)
        with (home / "log").open("ab") as out:
            self.processes[port] = subprocess.Popen(
                [self._binary, *arguments, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)],
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent,
            )
        client = redis.Redis(port=port, retry=Retry(NoBackoff(), 0), **login)  # type: ignore[arg-type]
        settled(client.ping, f"server on port {port}")
        return client

    def kill(self, port: int) -> None:
        self.processes[port].kill()
        self.processes[port].wait()

    def close(self) -> None:
        for port in self.processes:
            self.kill(port)


class Watched:
    """A primary and a replica, watched by three Sentinels, which make the other one primary when it dies."""

    def __init__(self, folder: Path, memory_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.servers = Servers(folder)
        self._arguments = ["--save", "", "--maxmemory", f"{memory_mb}mb"]
        ports = free_ports(2 + SENTINELS)
        self.ports, watchers = ports[:2], ports[2:]
        first = self.servers.start(self.ports[0], *self._arguments)
        self.servers.start(self.ports[1], *self._arguments, "--replicaof", "127.0.0.1", str(self.ports[0]))
        settled(lambda: first.info("replication")["connected_slaves"] == 1, "replica")
        for port in watchers:
            file = folder / f"sentinel-{port}.conf"
            file.write_text(
                f"sentinel monitor {NAME} 127.0.0.1 {self.ports[0]} 2\n"
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {NAME} 3000\n"
            )
            self.servers.start(port, str(file), "--sentinel")
        self._sentinel = redis.Redis(port=watchers[0])
        settled(
            lambda: self._sentinel.sentinel_master(NAME)["num-other-sentinels"] == SENTINELS - 1,
            "Sentinels that know all",
        )
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in watchers)}/{NAME}"

    @property
    def primary(self) -> int:
        """The port that the Sentinels name."""
        return int(self._sentinel.sentinel_master(NAME)["port"])

    def restart(self) -> None:
        """The primary is killed, the other takes over, and the killed one comes back as its replica."""
        old = self.primary
        self.servers.kill(old)
        settled(lambda: self.primary != old, "failover")
        client = self.servers.start(old, *self._arguments, "--replicaof", "127.0.0.1", str(self.primary))
        settled(lambda: client.info("replication").get("master_link_status") == "up", "replica")

    def stop(self) -> None:
        self.servers.close()


class Nodes:
    """A cluster: three nodes with a third of the slots each, and an append-only file each."""

    def __init__(self, folder: Path, memory_mb: int) -> None:
        self.servers = Servers(folder)
        self._arguments = ["--save", "", "--appendonly", "yes", "--maxmemory", f"{memory_mb}mb"]
        self._arguments += ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        self.ports = free_ports(NODES)
        for number, port in enumerate(self.ports):
            client = self.servers.start(port, *self._arguments)
            start, end = number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", start, end)
            client.execute_command("CLUSTER MEET", "127.0.0.1", self.ports[0])
        self._settle()
        self.url = f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in self.ports)}"

    def restart(self) -> None:
        """Every node is killed and comes back, one after the other."""
        for port in self.ports:
            self.servers.kill(port)
            self.servers.start(port, *self._arguments)
            self._settle()

    def stop(self) -> None:
        self.servers.close()

    def _settle(self) -> None:
        def agreed(port: int) -> bool:
            info = redis.Redis(port=port).execute_command("CLUSTER INFO")
            return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(NODES))

        for port in self.ports:
            settled(lambda port=port: agreed(port), "cluster")  # type: ignore[misc]
