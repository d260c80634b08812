"""kill -9 in every phase of a transfer: whoever comes next finds nothing half-done in its way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.streams import Broker
from common.weights import folder
from common.weights.store import WeightStore
from tests.integration.carrying import Learner, fetched, same
from tests.until import until

pytestmark = pytest.mark.usefixtures("small_pieces")

ROOT = Path(__file__).parents[2]

CHILD = """
import os, signal, sys
from pathlib import Path
from common.weights import chunks, fetch, folder
from common.weights.store import WeightStore
from tests.integration.carrying import Learner

role, phase, url, run, root = sys.argv[1:]
chunks.PIECE_BYTES = 4096

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def after(calls, real):
    count = iter(range(calls))
    return lambda *given, **named: real(*given, **named) if next(count, None) is not None else die()

def half_a_file(self, layout, other):
    self.file.write_bytes(other.read_bytes()[:layout.data_bytes // 2])
    die()

{
    "locked": lambda: setattr(fetch, "_is_here", die),
    "first chunk": lambda: setattr(WeightStore, "chunk", die),
    "third chunk": lambda: setattr(WeightStore, "chunk", after(2, WeightStore.chunk)),
    "copying": lambda: setattr(folder.Draft, "copy", half_a_file),
    "verifying": lambda: setattr(folder, "verify", die),
    "naming": lambda: setattr(folder.Draft, "publish", die),
    "copying out": lambda: setattr(folder, "checksum", after(2, folder.checksum)),
    "first put": lambda: setattr(WeightStore, "put", die),
    "third put": lambda: setattr(WeightStore, "put", after(2, WeightStore.put)),
    "announcing": lambda: setattr(WeightStore, "announce", die),
    "announced": lambda: setattr(WeightStore, "drop_all_but", die),
}[phase]()
if role == "actor":
    store = WeightStore(url, run, "actor")
    fetch.fetch(store, store.carried(), Path(root), lambda: True)
else:
    learner = Learner(Path(root), WeightStore(url, run, "learner"), incarnation=2)
    learner.store.want()
    for _ in range(3):
        learner.carry()
"""


def killed(role: str, phase: str, broker: Broker, root: Path) -> None:
    """Runs one until it kills itself there."""
    command = [sys.executable, "-c", CHILD, role, phase, broker.url, broker.run, str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def unfinished(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("phase", ["locked", "first chunk", "third chunk", "verifying", "naming", "copying"])
def test_an_actor_dies_while_it_fetches(learner: Learner, broker: Broker, tmp_path: Path, phase: str) -> None:
    store, root = WeightStore(broker.url, broker.run, "actor"), tmp_path / "actor"
    learner.carry()
    if phase == "copying":  # what changed is applied to a copy of what is there
        fetched(store, root)
        learner.carry()
    killed("actor", phase, broker, root)
    made = learner.carry()
    assert same(fetched(store, root), made)
    assert unfinished(root) == [] and len(folder.versions(root)) <= 2
    until(lambda: store.read_now() <= {0}, "at most the dead one's mark")
    learner.uploader.close(over=False)


@pytest.mark.parametrize("phase", ["copying out", "naming", "first put", "third put", "announcing", "announced"])
def test_a_learner_dies_while_it_publishes(learner: Learner, broker: Broker, tmp_path: Path, phase: str) -> None:
    store, root = WeightStore(broker.url, broker.run, "actor"), tmp_path / "actor"
    made = learner.carry()
    assert same(fetched(store, root), made)
    learner.uploader.close(over=False)
    killed("learner", phase, broker, learner.root)
    # Its successor takes the same folder and the same broker
    successor = Learner(learner.root, WeightStore(broker.url, broker.run, "learner"), incarnation=3, step=1)
    made = successor.carry()
    assert same(fetched(store, root), made)
    carried = store.carried()
    assert carried and len(broker._redis.keys(broker.key("weights:[0-9]*"))) == len(carried.parts) == 1
    assert unfinished(learner.root) == []
    successor.uploader.close(over=False)
