"""Hosts that give each other what they have fetched: few of many that join at once read from the broker."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.downloads import Downloads
from common.address import local_host
from common.schema import Part
from common.streams import Broker
from common.weights import folder, relay
from common.weights.relay import Relay, Wanted, take
from common.weights.store import MOST_READERS, WeightStore
from tests.integration.carrying import Learner, fetched, same
from tests.make import published
from tests.until import until

pytestmark = pytest.mark.usefixtures("small_pieces")

SECRET = b"s" * 32
SIZE = 72
"""Of the file of `published`."""


@pytest.fixture
def relay_of() -> Iterator[Callable[[Path], Relay]]:
    made: list[Relay] = []

    def relay_of(root: Path) -> Relay:
        made.append(Relay("127.0.0.1", root, SECRET))
        return made[-1]

    yield relay_of
    for one in made:
        one.close()


def wanted(root: Path, step: int = 9, *, frozen: bool = False) -> Wanted:
    files = [path / folder.FILE for path in root.iterdir()]
    return Wanted(1, step, frozen, files[0].stat().st_size if files else SIZE)


def test_the_newest_version_that_is_not_newer_is_given(tmp_path: Path, relay_of: Callable[[Path], Relay]) -> None:
    for step in (3, 5):
        published(tmp_path / "a", 1, step, float(step))
    giving = relay_of(tmp_path / "a")

    def get(step: int, frozen: bool = False, secret: bytes = SECRET) -> Path | None:
        found = take(
            giving.address,
            secret,
            wanted(tmp_path / "a", step, frozen=frozen),
            lambda step: tmp_path / "b" / f"v1-{step}",
        )
        until(lambda: not giving.connected, "the guest's end")  # and its place is free
        return found

    assert get(9) == tmp_path / "b" / "v1-5"
    assert (tmp_path / "b" / "v1-5" / folder.FILE).read_bytes() == (tmp_path / "a" / "v1-5" / folder.FILE).read_bytes()
    assert get(4) == tmp_path / "b" / "v1-3"
    assert get(2) is None and get(9, frozen=True) is None
    assert get(9, secret=b"x" * 32) is None, "another run's secret"
    Path(published(tmp_path / "x", 1, 0).folder).rename(tmp_path / "a" / "frozen-1")
    assert get(0, frozen=True) == tmp_path / "b" / "v1-0"
    until(lambda: giving.served == 3, "the last file's end")


def test_strangers_and_guests_too_many_get_nothing(
    tmp_path: Path, relay_of: Callable[[Path], Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    published(tmp_path / "a", 1, 0)
    giving = relay_of(tmp_path / "a")
    host, _, port = giving.address.rpartition(":")
    # Who says something else, or nothing, is not answered for long
    with monkeypatch.context() as patched:
        patched.setattr(relay, "TIMEOUT_S", 0.2)
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"", b"x" * 5000):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(said)
                connection.settimeout(60)
                try:
                    assert connection.recv(100) in (b"", bytes(16))
                except ConnectionResetError:
                    pass
    # A host that is busy sends others away
    held = [giving.places.acquire() for _ in range(relay.MOST_GUESTS)]
    target = lambda step: tmp_path / "b" / f"v1-{step}"  # noqa: E731
    assert take(giving.address, SECRET, wanted(tmp_path / "a"), target) is None
    for _ in held:
        giving.places.release()
    assert take(giving.address, SECRET, wanted(tmp_path / "a"), target)
    # What is larger than it should be is not taken, and nobody is there at another port
    assert take(giving.address, SECRET, Wanted(1, 9, False, 7), target) is None
    assert take("127.0.0.1:1", SECRET, wanted(tmp_path / "a"), target) is None
    assert take("nonsense", SECRET, wanted(tmp_path / "a"), target) is None


def test_sixty_hosts_that_join_at_once_read_few_whole_versions(
    learner: Learner, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What takes long is the broker's line, not a relay's: who reads after the first is done when all others are
    monkeypatch.setattr("common.weights.store.READING_MS", 600_000)
    monkeypatch.setattr("common.weights.store.RELAY_MS", 600_000)
    for _ in range(3):
        made = learner.carry()
    whole_reads: list[str] = []
    done: list[Path] = []
    deadline = time.monotonic() + 60.0

    class Counting(WeightStore):
        def chunk(self, incarnation: int, part: Part, number: int) -> bytes | None:
            if part.base is None and number == 0:
                whole_reads.append(self.consumer)
                if len(whole_reads) > MOST_READERS:
                    while len(done) < len(roots) - MOST_READERS and time.monotonic() < deadline:
                        time.sleep(0.05)
            return super().chunk(incarnation, part, number)

    relays: list[Relay] = []
    roots = [tmp_path / f"host-{number}" for number in range(60)]

    def join(root: Path) -> Path:
        store = Counting(broker.url, broker.run, "actor")
        path = fetched(store, root)
        relays.append(Relay("127.0.0.1", root, store.secret()))
        store.relay_at(relays[-1].address)
        done.append(path)
        return path

    try:
        with ThreadPoolExecutor(len(roots)) as pool:
            paths = list(pool.map(join, roots))
        assert all(same(path, made) for path in paths)
        # Others begin between the end of one's reading and its first word as a relay: as many again at most
        assert len(whole_reads) <= 2 * MOST_READERS, "the others had it from these, and from one another"
        assert sum(one.served > 0 for one in relays) >= MOST_READERS, "and not all from the same"
    finally:
        for one in relays:
            one.close()


def test_a_relay_that_gives_nonsense_is_not_believed(learner: Learner, broker: Broker, tmp_path: Path) -> None:
    made = learner.carry()
    store = WeightStore(broker.url, broker.run, "actor")
    fetched(store, tmp_path / "liar")
    file = tmp_path / "liar" / "v1-0" / folder.FILE
    file.write_bytes(file.read_bytes()[:-3] + b"xyz")
    lying = Relay("127.0.0.1", tmp_path / "liar", store.secret())
    try:
        store.relay_at(lying.address)
        assert same(fetched(store, tmp_path / "actor"), made), "from the broker, after all"
        until(lambda: lying.served == 1, "the lie's end")
    finally:
        lying.close()


def test_the_actors_of_a_host_relay_as_one(
    learner: Learner, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.relaying.local_host", lambda _: "127.0.0.1")
    monkeypatch.setattr("actors.relaying.RELAY_MS", 30)
    store = WeightStore(broker.url, broker.run, "actor")
    actors = [Downloads(WeightStore(broker.url, broker.run, "actor"), tmp_path / "host", relay=True) for _ in range(3)]
    try:
        made = learner.carry()
        until(lambda: len(store.relays()) == 1, "one relay")
        first = store.relays()
        assert same(fetched(store, tmp_path / "other"), made)
        # When its actor leaves another takes its place
        next(one for one in actors if one._relaying and one._relaying._relay).close()
        until(lambda: len({*store.relays()} - {*first}) == 1, "another relay")
    finally:
        for one in actors:
            one._background.closed.set()
        for one in actors:
            one.close()


def test_this_hosts_own_address() -> None:
    assert local_host("unix:///x/broker.sock") is None
    assert local_host("redis://127.0.0.1:6379/0") == "127.0.0.1"
    assert local_host("redis+sentinel://u:p@127.0.0.1:26379,10.0.0.1:26379/mymaster") == "127.0.0.1"
    assert local_host("redis://no.such.host.invalid:6379") is None
