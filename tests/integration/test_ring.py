"""Broadcasts to actors that come, go, die and freeze: the others have every version, and wait for nobody for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from common.schema import Frozen, Policy
from common.streams import Broker
from common.weights import folder
from common.weights.folder import FILE
from common.weights.store import WeightStore
from learner import ring
from learner.ring import RingSender
from tests.integration.carrying import Learner, same
from tests.until import until

ROOT = Path(__file__).parents[2]

ACTOR = """
import sys, time
from pathlib import Path
from actors.ring import RingReceiver
from common.weights.store import WeightStore

url, run, root = sys.argv[1:]
receiver = RingReceiver(WeightStore(url, run, "actor"), Path(root))
told = None
while True:
    newest = receiver.newest
    if newest is not told:
        told = newest
        (Path(root).parent / f"{Path(root).name}.step").write_text(str(newest.step))
    time.sleep(0.01)
"""


class Ring:
    """A learner's side, and actors that are processes."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self._broker, self._folder = broker, folder
        self.learner = Learner(folder / "learner", WeightStore(broker.url, broker.run, "learner"))
        self.sender = RingSender(WeightStore(broker.url, broker.run, "learner"))
        self.actors: dict[str, subprocess.Popen[bytes]] = {}

    def join(self, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", ACTOR, self._broker.url, self._broker.run, str(self._folder / name)]
        self.actors[name] = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return self.actors[name]

    def has(self, name: str) -> int:
        """Step of the newest version that an actor has; -1 without one."""
        try:
            return int((self._folder / f"{name}.step").read_text() or -1)
        except FileNotFoundError:
            return -1

    def send(self, *names: str, seconds: float = 120.0, made: Policy | None = None) -> Policy:
        """The next version, until these have it."""
        made = made or self.learner.make()
        self.sender.offer(made)
        for name in names:

            def there(name: str = name) -> bool:
                self.sender.check()
                return self.has(name) == made.step

            until(there, f"step {made.step} at {name}", seconds)
            assert same(self._folder / name / f"v{made.incarnation}-{made.step}", made)
        return made

    def close(self) -> None:
        for actor in self.actors.values():
            actor.send_signal(signal.SIGCONT)
            actor.kill()
            actor.wait()
        self.sender.close()
        self.learner.uploader.close(over=False)


@pytest.fixture
def a_ring(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    monkeypatch.setattr(ring, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(ring, "BUCKET_S", 6.0)  # longer than a busy machine keeps one who lives from its turn
    monkeypatch.setattr(ring, "SAY_S", 6.0)
    monkeypatch.setattr(ring, "AWAY_S", 600.0)
    made = Ring(broker, tmp_path)
    yield made
    made.close()


def test_actors_come_and_go(a_ring: Ring) -> None:
    a_ring.sender.offer(a_ring.learner.make())  # to nobody: a legal state
    a_ring.join("a")
    a_ring.send("a")
    a_ring.join("b")
    until(lambda: a_ring.has("b") == 1, "the newest version at one that joins", 120)
    for _ in range(5):
        a_ring.send("a", "b")
    assert len(folder.versions(a_ring._folder / "a")) <= 2
    a_ring.actors["a"].kill()
    a_ring.send("b")
    assert (a_ring._folder / "b" / "v1-7" / FILE).is_file()


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_dies_or_freezes_costs_the_others_one_deadline(a_ring: Ring, way: signal.Signals) -> None:
    for name in "abc":
        a_ring.join(name)
    a_ring.send(*"abc")
    os.kill(a_ring.actors["b"].pid, way)
    with capture_logs() as said:
        for _ in range(5):
            a_ring.send("a", "c")
    broke = [line for line in said if line["event"].startswith("the ring broke")]
    assert len(broke) <= 1, "and once only"


def test_what_is_frozen_comes_once(a_ring: Ring, tmp_path: Path) -> None:
    made = a_ring.learner.make()
    kept = tmp_path / "kept"
    Path(made.folder).rename(kept)
    below = Frozen(made.manifest, str(kept), 2.0)
    a_ring.join("a")
    for _ in range(2):
        a_ring.send("a", made=replace(a_ring.learner.make(), frozen=below))
    assert (tmp_path / "a" / "frozen-1" / FILE).read_bytes() == (kept / FILE).read_bytes()
