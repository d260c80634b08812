"""What lies between two hosts: a socket of one machine, a cable, a slow cable, a long way."""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.hosts import Host, Network

PORT, BARE_PORT = 6390, 6391
DELAY_S = 0.025
"""Each way, of the host that is 50 ms away."""
READ_BYTES = 2**18


@dataclass(frozen=True)
class Link:
    """Where a server listens, how the other side reaches it, and what a command on either side begins with."""

    name: str
    server: list[str]
    """Arguments of the server."""
    url: str
    bare_server: str
    bare: str
    """Where a bare copy listens, and how it is reached: a path, or host:port."""
    at_server: list[str] = field(default_factory=list)
    at_side: list[str] = field(default_factory=list)


@contextmanager
def unix(folder: Path) -> Iterator[Link]:
    path = f"{folder}/broker.sock"
    arguments = ["--port", "0", "--unixsocket", path]
    yield Link("unix socket", arguments, f"unix://{path}", f"{folder}/bare.sock", f"{folder}/bare.sock")


@contextmanager
def tcp(_: Path) -> Iterator[Link]:
    yield Link(
        "TCP", _listens("127.0.0.1"), f"redis://127.0.0.1:{PORT}", f"127.0.0.1:{BARE_PORT}", f"127.0.0.1:{BARE_PORT}"
    )


@contextmanager
def limited(rate: str, _: Path) -> Iterator[Link]:
    """Two hosts, either of which sends no faster; `rate` as `tc` reads it."""
    with Network() as network:
        server, side = network.add("broker"), network.add("side")
        for host in (server, side):
            _limit(host, rate)
        url, bare = f"redis://{server.address}:{PORT}", f"{server.address}:{BARE_PORT}"
        yield Link(rate, _listens(server.address), url, bare, bare, server.inside, side.inside)


@contextmanager
def far(_: Path) -> Iterator[Link]:
    """Every byte arrives DELAY_S later, each way; as many as one likes are on their way."""
    with _delayed(PORT) as port, _delayed(BARE_PORT) as bare:
        yield Link(
            "50 ms away",
            _listens("127.0.0.1"),
            f"redis://127.0.0.1:{port}",
            f"127.0.0.1:{BARE_PORT}",
            f"127.0.0.1:{bare}",
        )


def _listens(host: str) -> list[str]:
    return ["--port", str(PORT), "--bind", host, "--protected-mode", "no"]


def _limit(host: Host, rate: str) -> None:
    limit = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
    subprocess.run([*host.inside, *limit], check=True, timeout=30)


@contextmanager
def _delayed(to: int) -> Iterator[int]:
    """A port of this machine from which all goes to another, later."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near = listening.accept()[0]
                    away = socket.create_connection(("127.0.0.1", to))
                    for source, target in ((near, away), (away, near)):
                        _pump(source, target)

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]


def _pump(source: socket.socket, target: socket.socket) -> None:
    line: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def read() -> None:
        data = b"-"
        with suppress(OSError):
            while data:
                data = source.recv(READ_BYTES)
                line.put((time.monotonic() + DELAY_S, data))

    def write() -> None:
        with suppress(OSError):
            while True:
                due, data = line.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    return target.shutdown(socket.SHUT_WR)
                target.sendall(data)

    for part in (read, write):
        threading.Thread(target=part, daemon=True).start()
