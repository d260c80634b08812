"""New weights by every carrier, against bare copies of the same bytes: over tmpfs, sockets, and slow or long lines."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.lifecycle import computing_environment, die_with_parent
from common.server import find_server
from common.weights import folder
from common.weights.folder import Draft, of
from common.weights.manifest import checksum
from tests.bench.carriers import links, shapes
from tests.bench.carriers.links import Link

TARGET = 0.8
DELTA_SHARE = 0.05
ROUNDS = 5
SIDE_S = 900.0
LINKS: dict[str, tuple[Callable[[Path], AbstractContextManager[Link]], tuple[str, ...]]] = {
    "unix": (links.unix, ("135M", "1B")),
    "tcp": (links.tcp, ("135M", "1B")),
    "1gbit": (partial(links.limited, "1gbit"), ("135M", "1B")),
    "100mbit": (partial(links.limited, "100mbit"), ("135M",)),
    "far": (links.far, ("135M",)),
}

Row = dict[str, Any]


def run() -> list[Row]:
    """A row for each carrier, line and size."""
    return list(rows())


def rows() -> Iterator[Row]:
    for size in ("135M", "1B"):
        yield from tmpfs(size)
    for name, (link, sizes) in LINKS.items():
        for size in sizes:
            with tempfile.TemporaryDirectory(dir="/dev/shm") as place, link(Path(place)) as between:
                yield from over(name, between, size, Path(place))


def tmpfs(size: str) -> Iterator[Row]:
    """The folder: write, name, check, map and copy / the same without any of ours but the checksums. Medians."""
    layout, made = shapes.layout(size), list(shapes.tensors(size, 0))
    ours, bare = [], []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        root = Path(place)
        for turn in range(ROUNDS + 1):
            started = time.perf_counter()
            draft = Draft(of(root, 1, turn))
            manifest = draft.write(layout, made)
            with folder.locked(draft.publish()) as file:
                folder.verify(file, manifest)
                _copied(folder.views(file, layout))
            ours.append(time.perf_counter() - started)
            folder.prune(root, 0)
            started = time.perf_counter()
            with (root / "bare").open("wb") as out:
                for tensor in made:
                    out.write(tensor.data)
                    checksum(tensor)
            whole = np.memmap(root / "bare", np.uint8, "r")
            ends = np.cumsum([len(tensor) for tensor in made])
            parts = np.split(whole, ends[:-1])
            for part in parts:
                checksum(part)
            _copied(parts)
            bare.append(time.perf_counter() - started)
            (root / "bare").unlink()
    theirs, our = statistics.median(bare[1:]), statistics.median(ours[1:])
    yield _row(
        f"carrier_tmpfs_{size}", theirs / our, TARGET, {"seconds": our, "bare_s": theirs, "mb": layout.data_bytes / 1e6}
    )


def over(name: str, link: Link, size: str, place: Path) -> Iterator[Row]:
    """The broker: a bare copy of the same bytes over the same line / a version put there, and fetched from there.

    What the server itself takes of the difference: `plain_put_s` and `plain_get_s`, by a client that does nothing else.
    """
    total = shapes.layout(size).data_bytes
    with _server(link, place, total), _listening(link):
        found = _side(link, "plain", link.url, str(total))
        found |= _side(link, "put", link.url, str(place / "learner"), size)
        found |= _side(link, "get", link.url, str(place / "actor"), str(place / "learner"))
        file = str(next((place / "learner").glob("v1-0/*")))
        for name_of, size_of in (("bare_s", total), ("bare_delta_s", int(found["delta_mb"] * 1e6))):
            times = [_side(link, "bare", link.bare, file, str(size_of))["bare_s"] for _ in range(3)]
            found[name_of] = statistics.median(times)
    shutil.rmtree(place / "learner")
    shutil.rmtree(place / "actor")
    for way in ("put", "get"):
        yield _row(f"carrier_{name}_{size}_{way}", found["bare_s"] / found[f"whole_{way}_s"], TARGET, found)
    saved = found["delta_put_s"] + found["delta_get_s"]
    yield _row(f"carrier_{name}_{size}_delta_bytes", found["delta_mb"] * 1e6 / total, DELTA_SHARE, found, at_most=True)
    yield _row(
        f"carrier_{name}_{size}_delta_seconds",
        saved / (found["whole_put_s"] + found["whole_get_s"]),
        1.0,
        found,
        at_most=True,
    )


def _copied(tensors: list[np.ndarray[Any, Any]]) -> None:
    for tensor in tensors:
        tensor.copy()


def _row(name: str, ratio: float, target: float, detail: dict[str, float], *, at_most: bool = False) -> Row:
    holds = ratio <= target if at_most else ratio >= target
    rounded = {key: round(value, 4) for key, value in detail.items()}
    return {"name": name, "ratio": round(ratio, 4), "target": target, "holds": holds, "detail": rounded}


def _side(link: Link, *command: str) -> dict[str, float]:
    whole = [*link.at_side, sys.executable, "-m", "tests.bench.carriers.side", *command]
    done = subprocess.run(
        whole, stdout=subprocess.PIPE, text=True, timeout=SIDE_S, check=True, env=computing_environment(1)
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def _server(link: Link, place: Path, total: int) -> Iterator[None]:
    memory = ["--maxmemory", str(3 * total + 2**28), "--maxmemory-policy", "noeviction", "--save", ""]
    command = [*link.at_server, find_server()[0], *link.server, *memory, "--dir", str(place)]
    said = place / "broker.log"
    with said.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=die_with_parent)
    try:
        while b"Ready to accept connections" not in said.read_bytes():
            assert process.poll() is None, said.read_text()
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _listening(link: Link) -> Iterator[None]:
    command = [*link.at_server, sys.executable, "-m", "tests.bench.carriers.side", "listen", link.bare_server]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, preexec_fn=die_with_parent, env=computing_environment(1)
    )
    try:
        assert process.stdout
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
