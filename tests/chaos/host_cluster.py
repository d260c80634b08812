"""A run on hosts of its own: broker, learner, actors and scorers, each in a network namespace."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import redis

from common.address import client_of
from common.lifecycle import die_with_parent
from common.server import find_server
from tests.chaos.cluster import Cluster, Worker
from tests.chaos.hosts import Host, Network, listen
from tests.chaos.proxy import Proxy
from tests.until import until

BROKER_PORT, PROXY_PORT = 6379, 6380
MEMORY_MB = 64
COMMIT_EVERY_STEPS = 16  # seconds, in which what a worker hands over too late finds its ticket open


class HostedServer:
    """A server with an append-only file on a host; its unix socket is for those who look on from outside."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host, self._folder = host, folder
        folder.mkdir(parents=True)
        self.socket = folder / "broker.sock"
        self.url = f"unix://{self.socket}"
        self.client = client_of(self.url)
        self.start()

    def start(self) -> None:
        settings = {
            "bind": self._host.address,
            "port": str(BROKER_PORT),
            "protected-mode": "no",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "maxmemory": f"{MEMORY_MB}mb",
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes",
            "dir": str(self._folder),
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        with (self._folder / "broker.log").open("ab") as out:
            self._process = subprocess.Popen(
                [*self._host.inside, find_server()[0], *options], stdout=out, stderr=out, preexec_fn=die_with_parent
            )
        until(self.client.ping, f"answer of the server, see {out.name}", 20, (redis.RedisError,))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class HostCluster(Cluster):
    """Every second host reaches the broker through a proxy there, the others on its own port."""

    def __init__(
        self, network: Network, settings: Path, run_id: str, folder: Path, *, actors: int, scorers: int
    ) -> None:
        self._network = network
        self.broker_host = network.add("broker")
        self.server = HostedServer(self.broker_host, folder / "b")
        self.proxy = Proxy(listen(self.broker_host, PROXY_PORT), self.server.socket)
        names = ["learner", *(f"actor-{n}" for n in range(actors)), *(f"scorer-{n}" for n in range(scorers))]
        self.hosts = {name: network.add(name) for name in names}
        """Where each place is now."""
        self.away: set[str] = set()
        """Places whose host has vanished, and no other has come yet."""
        super().__init__(settings, self.server.url, run_id, folder / "logs", actors=actors, scorers=scorers, real=False)

    def vanish(self, name: str) -> None:
        self._network.vanish(self.hosts[name])
        self.workers[name].process.wait()
        self.away.add(name)

    def come(self, name: str) -> None:
        """A new host takes a place."""
        self.hosts[name] = self._network.add(name)
        module = self.workers[name].module
        self.workers[name] = Worker(name, module, self._spawn(name, module), time.monotonic())
        self.away.discard(name)

    def replace(self, name: str) -> tuple[Host, Worker]:
        """A new host takes the place of one that lives; the old one, which is the caller's now."""
        old = self.hosts[name], self.workers[name]
        self.come(name)
        return old

    def close(self) -> None:
        super().close()
        self.proxy.close()
        self.server.kill()

    def _inside(self, name: str) -> list[str]:
        return [*self.hosts[name].inside, "env", f"HERO_LEARNER__CHECKPOINT_EVERY_STEPS={COMMIT_EVERY_STEPS}"]

    def _url(self, name: str) -> str:
        port = PROXY_PORT if self.hosts[name].number % 2 else BROKER_PORT
        return f"redis://{self.broker_host.address}:{port}/0"
