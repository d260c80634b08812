"""`python -m tests.bench.carriers.side ...`: one side of a transfer, as a process; a JSON line with its figures.

listen ADDRESS              the other end of bare copies
bare ADDRESS FILE BYTES     so many bytes of a file over a bare socket, until the other end has them all in memory
plain URL BYTES             so many bytes to a server and back in chunks, by a plain client of it
put URL ROOT SIZE           two versions into a broker: one whole, one by what a step changed
get URL ROOT FROM           both out of it; FROM is the ROOT of `put`
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

import numpy as np

from common.address import client_of
from common.schema import Carried, Policy, pack, unpack
from common.weights.fetch import fetch
from common.weights.store import WeightStore
from learner.uploader import Uploader
from tests.bench.carriers.shapes import publish

RUN = "bench"
BLOCK_BYTES = 2**22


def main(command: str, *given: str) -> dict[str, float]:
    match command:
        case "listen":
            return listen(given[0])
        case "bare":
            return bare(given[0], Path(given[1]), int(given[2]))
        case "plain":
            return plain(given[0], int(given[1]))
        case "put":
            return put(given[0], Path(given[1]), given[2])
        case "get":
            return get(given[0], Path(given[1]), Path(given[2]))
    raise SystemExit(__doc__)


def listen(address: str) -> dict[str, float]:
    """Takes what comes, connection after connection, and answers each with a byte at its end."""
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))) if host else _unix_server(address) as server:
        print(json.dumps({"listening": 1}), flush=True)
        while True:
            with server.accept()[0] as connection:
                size = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "little")
                into = memoryview(np.empty(size, np.uint8))
                while into:
                    into = into[connection.recv_into(into[:BLOCK_BYTES]) :]
                connection.sendall(b"!")


def bare(address: str, file: Path, size: int) -> dict[str, float]:
    """Seconds."""
    host, _, port = address.rpartition(":")
    if host:
        connection = socket.create_connection((host, int(port)))
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
    whole = np.memmap(file, np.uint8, "r")[:size]
    with connection:
        started = time.perf_counter()
        connection.sendall(size.to_bytes(8, "little"))
        for sent in range(0, size, BLOCK_BYTES):
            connection.sendall(whole[sent : sent + BLOCK_BYTES].data)
        assert connection.recv(1) == b"!"
        return {"bare_s": time.perf_counter() - started}


def plain(url: str, size: int) -> dict[str, float]:
    """Seconds each way."""
    client, chunk = client_of(url), np.random.default_rng(0).bytes(BLOCK_BYTES)
    keys = [f"plain:{number}" for number in range(-(-size // BLOCK_BYTES))]
    times = [time.perf_counter()]
    for each in (lambda key: client.set(key, chunk), client.get):
        for key in keys:
            each(key)
        times.append(time.perf_counter())
    client.unlink(*keys)
    return {"plain_put_s": times[1] - times[0], "plain_get_s": times[2] - times[1]}


def put(url: str, root: Path, size: str) -> dict[str, float]:
    """Seconds until a version can be had from the broker, and its bytes there."""
    made = [publish(root, size, steps) for steps in (0, 1)]
    (root / "first").write_bytes(pack(made[0]))
    store = WeightStore(url, RUN, "learner")
    uploader, found = Uploader(store, {"config.json": b"{}"}), {}
    for kind, policy in zip(("whole", "delta"), made, strict=True):
        store.want()
        started = time.perf_counter()
        uploader.offer(policy)
        while uploader.figures.get("carried_step") != policy.step:
            uploader.check()
            time.sleep(0.001)
        found |= {f"{kind}_put_s": time.perf_counter() - started, f"{kind}_mb": uploader.figures["carried_mb"]}
    uploader.close(over=False)
    return found


def get(url: str, root: Path, put: Path) -> dict[str, float]:
    """Seconds until a version is in a folder here, verified."""
    store = WeightStore(url, RUN, "actor")
    newest, first = store.carried(), unpack((put / "first").read_bytes())
    assert newest and isinstance(first, Policy)
    whole = Carried(first, [part for part in newest.parts if part.base is None])
    found = {}
    for kind, carried in (("whole", whole), ("delta", newest)):
        started = time.perf_counter()
        fetch(store, carried, root, lambda: True)
        found[f"{kind}_get_s"] = time.perf_counter() - started
    return found


def _unix_server(path: str) -> socket.socket:
    Path(path).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    return server


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])), flush=True)
