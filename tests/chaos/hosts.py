"""Hosts on one machine: network namespaces on a bridge that nothing outside of them can reach.

A partition drops packets where they arrive, so that their sender hears nothing: no reset, no refusal, no unreachable
host. Needs root, `ip` and `nft`. Names carry the process id: two networks may exist at once.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

NETWORK = "10.77"
PREFIX = "hero-"
CLONE_NEWNET = 0x40000000
RULES = """
table inet hero {
  set gone { type ipv4_addr; }
  chain input { type filter hook input priority 0; ip saddr @gone drop; }
}
"""


class NoNetwork(Exception):
    """This machine, or this user, cannot have network namespaces with rules."""


@dataclass(frozen=True)
class Host:
    """Example: `Host("actor-0", 4, "hero-4711-4-actor-0")`."""

    name: str
    number: int
    """Of the network's hosts so far: a host that comes for one that vanished is another one."""
    namespace: str

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number // 250}.{self.number % 250 + 1}"

    @property
    def link(self) -> str:
        """Its end at the bridge."""
        return f"link{self.number}"

    @property
    def inside(self) -> list[str]:
        """What a command begins with that is to run on this host."""
        return ["ip", "netns", "exec", self.namespace]


class Network:
    """A bridge with hosts, in namespaces of their own; all of it goes with its context."""

    def __init__(self) -> None:
        require()
        self._numbers = count(1)
        self._cut: Counter[tuple[Host, Host]] = Counter()
        self._bridge = f"{PREFIX}{os.getpid()}-bridge"
        self.hosts: list[Host] = []
        _run("ip", "netns", "add", self._bridge)
        # No delay before a new port forwards.
        _run("ip", "-n", self._bridge, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        _run("ip", "-n", self._bridge, "link", "set", "bridge", "up")

    def add(self, name: str) -> Host:
        number = next(self._numbers)
        host = Host(name, number, f"{PREFIX}{os.getpid()}-{number}-{name}")
        _run("ip", "netns", "add", host.namespace)
        self.hosts.append(host)
        at_bridge, at_host = ["ip", "-n", self._bridge], ["ip", "-n", host.namespace]
        peer = ["peer", "name", "eth0", "netns", host.namespace]
        _run(*at_bridge, "link", "add", host.link, "type", "veth", *peer)
        _run(*at_bridge, "link", "set", host.link, "master", "bridge", "up")
        _run(*at_host, "address", "add", f"{host.address}/16", "dev", "eth0")
        _run(*at_host, "link", "set", "lo", "up")
        _run(*at_host, "link", "set", "eth0", "up")
        _run(*host.inside, "nft", "-f", "-", text=RULES)
        return host

    def cut(self, source: Host, target: Host) -> None:
        """What `source` sends to `target` is lost, until it was healed as often as it was cut."""
        self._cut[source, target] += 1
        if self._cut[source, target] == 1:
            self._rule("add", source, target)

    def heal(self, source: Host, target: Host) -> None:
        self._cut[source, target] -= 1
        if self._cut[source, target] == 0:
            self._rule("delete", source, target)

    def vanish(self, host: Host) -> None:
        """Its link goes down first and its processes die then: nobody hears of it, not by a FIN and not by a reset."""
        _run("ip", "-n", self._bridge, "link", "set", host.link, "down")
        self.remove(host)

    def remove(self, host: Host) -> None:
        for pid in _run("ip", "netns", "pids", host.namespace).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.hosts.remove(host)
        _run("ip", "netns", "delete", host.namespace)

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        for host in list(self.hosts):
            with suppress(NoNetwork):  # the others must go all the same
                self.remove(host)
        _run("ip", "netns", "delete", self._bridge)

    def _rule(self, verb: str, source: Host, target: Host) -> None:
        if target in self.hosts:
            _run(*target.inside, "nft", verb, "element", "inet", "hero", "gone", f"{{ {source.address} }}")


def require() -> None:
    """Raises NoNetwork with the remedy. Removes what networks left behind whose processes were killed."""
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    if missing:
        raise NoNetwork(f"{' and '.join(missing)} not found; apt-get install -y iproute2 nftables")
    if os.geteuid() != 0:
        raise NoNetwork("network namespaces need root; run the same command with sudo")
    for namespace in re.findall(rf"^{PREFIX}\d+-\S+", _run("ip", "netns", "list"), re.MULTILINE):
        if not Path("/proc", namespace.removeprefix(PREFIX).split("-")[0]).exists():
            _run("ip", "netns", "delete", namespace)


def listen(host: Host, port: int) -> socket.socket:
    """A listening socket of a host, held by this process, which is outside of it."""
    made: list[socket.socket] = []

    def enter() -> None:  # a thread has a namespace of its own, and this one ends
        with open(f"/run/netns/{host.namespace}") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                return
        made.append(socket.create_server((host.address, port)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if not made:
        raise NoNetwork(f"nobody can listen on {host.address}:{port} in {host.namespace}; run it with all capabilities")
    return made[0]


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise NoNetwork(
            f"`{' '.join(command)}` failed: {done.stderr.strip()}; run it as root of a machine or container "
            "that may make network namespaces (CAP_SYS_ADMIN, CAP_NET_ADMIN)"
        )
    return done.stdout
