"""Weights through a real broker: every version bit for bit, whatever is lost, late, damaged or full on the way."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog

from actors.downloads import Downloads
from common.errors import DiskFull, Fenced, WeightsError
from common.schema import Frozen, Part
from common.streams import Broker
from common.weights import fetch, folder, plan
from common.weights.fetch import Gone
from common.weights.folder import FILE
from common.weights.store import MOST_READERS, WeightStore
from learner import uploader
from tests.integration.carrying import LAYOUT, Learner, fetched, same
from tests.make import policy
from tests.small_disk import SmallDisk
from tests.until import until

pytestmark = pytest.mark.usefixtures("small_pieces")


class Unreliable(WeightStore):
    """What a broker gives that lost, mixed up or damaged something: this share of the chunks."""

    share = 0.0
    faults = 0
    random = np.random.default_rng(1)

    def chunk(self, incarnation: int, part: Part, number: int) -> bytes | None:
        found = super().chunk(incarnation, part, number)
        if found is None or self.random.random() >= self.share:
            return found
        self.faults += 1
        match self.random.integers(4):
            case 0:
                return None  # lost
            case 1:
                return super().chunk(incarnation, part, (number + 1) % part.chunks)  # another's place, or itself again
            case 2:
                return found + found  # twice
        at = int(self.random.integers(len(found)))
        return found[:at] + bytes([found[at] ^ 1]) + found[at + 1 :]


@pytest.fixture
def store(broker: Broker) -> Unreliable:
    return Unreliable(broker.url, broker.run, "actor")


def test_200_versions_come_bit_for_bit_whatever_happens_to_chunks(
    learner: Learner, store: Unreliable, tmp_path: Path
) -> None:
    store.share = 0.2
    tries = 0
    for _ in range(200):
        made = learner.carry()
        if made.step % 7 == 3:
            continue  # this actor is late and skips one
        while True:
            tries += 1
            try:
                path = fetched(store, tmp_path / "actor")
            except (Gone, WeightsError):
                continue
            break
        assert same(path, made)
    assert store.faults > 20 and tries > 180, f"{store.faults} faults, {tries} tries"
    assert [name for name in (tmp_path / "actor").iterdir() if name.name.startswith(".v")] == [], "no half versions"


def test_only_what_changed_travels(learner: Learner, store: WeightStore, tmp_path: Path) -> None:
    sizes = []
    for _ in range(4):
        made = learner.carry()
        carried = store.carried()
        assert carried
        here = [step for _, step, _ in folder.versions(tmp_path / "actor")]
        way = plan.to_read(carried.parts, made.step, max(here, default=None))
        assert way is not None
        sizes.append(sum(part.bytes for part in way))
        fetched(store, tmp_path / "actor")
    assert sizes[0] > LAYOUT.data_bytes and max(sizes[1:]) < LAYOUT.data_bytes / 5


def test_nothing_is_carried_that_nobody_wants(
    learner: Learner, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker._redis.delete(broker.key("weights:wanted"))
    wanted, looks = learner.store.wanted, list[str]()
    monkeypatch.setattr(learner.store, "wanted", lambda: looks.append(wanted()) or looks[-1])
    made = learner.make()
    learner.uploader.offer(made)
    until(lambda: len(looks) > 2, "looks at what is wanted")
    assert learner.store.at() is None
    learner.store.want()
    until(lambda: learner.store.at() == (1, 0), "the version that an actor asked for after it was made")


def test_the_broker_keeps_few_parts(learner: Learner, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploader, "KEEP", 2)
    monkeypatch.setattr(plan, "WHOLE_EVERY", 5)
    for _ in range(30):
        learner.carry()
        assert len(broker._redis.keys(broker.key("weights:1-*"))) <= 1 + 5 + 2
    # And none of a learner that was there before
    learner.incarnation = 2
    learner.carry()
    assert broker._redis.keys(broker.key("weights:1-*")) == []


def test_nothing_stays_in_the_broker_when_the_run_is_over(learner: Learner, broker: Broker) -> None:
    before = set(broker._redis.keys(broker.key("*")))
    learner.carry()
    learner.carry()
    learner.uploader.close(over=True)
    left = set(broker._redis.keys(broker.key("*"))) - before
    assert left == {broker.key("carried:fence").encode()}, "no older learner may come now"


def test_a_whole_version_that_is_read_stays(
    learner: Learner, store: WeightStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.weights.store.READING_MS", 600_000)
    monkeypatch.setattr(plan, "WHOLE_EVERY", 2)
    monkeypatch.setattr(uploader, "KEEP", 0)
    learner.carry()
    store.reads(0)
    for _ in range(9):
        learner.carry()
    carried = store.carried()
    assert carried and [p.step for p in carried.parts if p.base is None] == [0, 3], "a third one has to wait"
    store.has_read(0)
    for _ in range(3):
        learner.carry()
    carried = store.carried()
    assert carried and len([p for p in carried.parts if p.base is None]) == 1


def test_a_part_that_goes_while_it_is_read(
    learner: Learner, store: WeightStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "CONNECTIONS", 2)  # else all of so small a version is on its way at once
    learner.carry()
    carried = store.carried()
    assert carried
    asked: list[int] = []

    def go_on() -> bool:
        asked.append(1)
        if len(asked) == 3:
            learner.store.drop(1, carried.parts)
        return True

    with pytest.raises(Gone):
        fetch.fetch(store, carried, tmp_path / "actor", go_on)
    assert folder.versions(tmp_path / "actor") == []


def test_a_broker_that_lost_its_data_gets_a_whole_version_again(
    learner: Learner, store: WeightStore, broker: Broker, tmp_path: Path
) -> None:
    learner.carry()
    broker._redis.flushall()
    store.want()
    until(lambda: store.at() == (1, 0), "the same version again")
    assert same(fetched(store, tmp_path / "actor"), replace(policy(), folder=str(learner.root / "v1-0")))


def test_a_full_broker_gets_no_weights_and_keeps_its_streams(
    learner: Learner, store: WeightStore, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes, tries = learner.store.free_bytes, list[float]()
    monkeypatch.setattr(learner.store, "free_bytes", lambda: tries.append(free_bytes()) or tries[-1])
    broker._redis.setrange("ballast", 32 * 2**20, b"x")  # a fifth of it is far more than what a server's buffers take
    used = broker._redis.info("memory")["used_memory"]
    broker._redis.config_set("maxmemory", used + LAYOUT.data_bytes // 2)
    try:
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                seen = len(tries)
                learner.uploader.offer(learner.make())
                until(lambda seen=seen: len(tries) > seen + 1, "two more tries")  # of which the first one is through
        assert store.at() is None and broker._redis.keys(broker.key("weights:1-*")) == []
        [told] = [line for line in logs if line["event"].startswith("weights not carried")]
        assert "where 0 are free for it; raise maxmemory, or set weights.url" in told["why"]
    finally:
        broker._redis.config_set("maxmemory", "256mb")
    broker._redis.delete("ballast")
    learner.carry()


def test_memory_that_ends_in_the_middle_of_a_version(
    learner: Learner, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, there = WeightStore.put, []

    def put_until_full(store: WeightStore, incarnation: int, part: Part, number: int, chunk: bytes) -> None:
        if number == 3:
            there.extend(broker._redis.keys(broker.key("weights:1-*")))
            broker._redis.config_set("maxmemory", 2**20)  # less than a server needs that holds nothing
        put(store, incarnation, part, number, chunk)

    with monkeypatch.context() as patched:
        patched.setattr(WeightStore, "put", put_until_full)
        patched.setattr(uploader, "LOOK_EVERY_S", 60)  # no second try before the first one is looked at
        patched.setattr(uploader, "CONNECTIONS", 1)
        try:
            learner.uploader.offer(learner.make())
            until(lambda: bool(learner.uploader._told), "the refusal")
            assert there, "some of it was in the broker"
            assert broker._redis.keys(broker.key("weights:1-*")) == [], "nothing of it stays in the streams' way"
        finally:
            broker._redis.config_set("maxmemory", "256mb")
    learner.carry()


def test_an_older_learner_cannot_announce(learner: Learner, broker: Broker, tmp_path: Path) -> None:
    learner.incarnation = 3
    learner.carry()
    older = Learner(tmp_path / "older", WeightStore(broker.url, broker.run, "learner"), incarnation=2)
    older.uploader.offer(older.make())
    with pytest.raises(Fenced):
        until(lambda: older.uploader.check(), "the refusal")
    older.uploader.close(over=False)


def test_actors_of_a_host_fetch_a_version_once(learner: Learner, broker: Broker, tmp_path: Path) -> None:
    learner.carry()
    counts: list[int] = []

    class Counting(WeightStore):
        def chunk(self, incarnation: int, part: Part, number: int) -> bytes | None:
            counts.append(number)
            return super().chunk(incarnation, part, number)

    def join() -> None:
        fetched(Counting(broker.url, broker.run, "actor"), tmp_path / "host")

    actors = [threading.Thread(target=join) for _ in range(20)]
    for actor in actors:
        actor.start()
    for actor in actors:
        actor.join()
    carried = learner.store.carried()
    assert carried and len(counts) == carried.parts[0].chunks, "a hundred actors that join are one read for each host"


def test_hosts_take_turns(learner: Learner, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner.carry()
    monkeypatch.setattr("common.weights.store.READING_MS", 600_000)
    reading: list[int] = []

    class Slow(WeightStore):
        def chunk(self, incarnation: int, part: Part, number: int) -> bytes | None:
            reading.append(len(broker._redis.zrange(broker.key("reading"), 0, -1)))
            if max(reading) < 2:  # the first waits for a second one beside it
                until(lambda: broker._redis.zcard(broker.key("reading")) > 1, "another reader")
            return super().chunk(incarnation, part, number)

    hosts = [
        threading.Thread(target=fetched, args=(Slow(broker.url, broker.run, "actor"), tmp_path / str(host)))
        for host in range(12)
    ]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    assert max(reading) <= MOST_READERS
    assert all(
        same(tmp_path / str(host) / "v1-0", replace(policy(), folder=str(learner.root / "v1-0"))) for host in range(12)
    )
    assert broker._redis.zcard(broker.key("reading")) == 0


def test_a_full_host_is_told(learner: Learner, store: WeightStore, small_disk: SmallDisk) -> None:
    learner.carry()
    small_disk.fill()
    with pytest.raises(DiskFull, match="no room for the weights of v1-0"):
        fetched(store, small_disk.folder / "actor")
    small_disk.free()
    assert same(fetched(store, small_disk.folder / "actor"), replace(policy(), folder=str(learner.root / "v1-0")))


def test_frozen_weights_travel_once(learner: Learner, store: WeightStore, broker: Broker, tmp_path: Path) -> None:
    frozen = learner.make()
    frozen = replace(frozen, folder=str(shutil.copytree(frozen.folder, tmp_path / "frozen")))  # versions go, this stays
    below = Frozen(frozen.manifest, frozen.folder, 2.0)
    root = tmp_path / "actor"
    for step in (1, 2):
        made = learner.carry(replace(learner.make(), frozen=below))
        carried = store.carried()
        assert carried and carried.frozen and made.step == step
        policy = fetch.fetch(store, carried, root, lambda: True)
        assert policy.frozen and same(Path(policy.frozen.folder), frozen) and same(Path(policy.folder), made)
    assert sorted(path.name for path in root.iterdir()) == [".fetching", "frozen-1", "v1-1", "v1-2"]
    # Its successor's replace them
    learner.incarnation, learner.step = 2, 2
    learner.carry(replace(learner.make(), frozen=below))
    assert broker._redis.keys(broker.key("weights:1*")) == []
    carried = store.carried()
    assert carried
    fetch.fetch(store, carried, root, lambda: True)
    folder.prune(root, 1)
    assert sorted(path.name for path in root.iterdir()) == [".fetching", "frozen-2", "v2-3"]


def test_a_damaged_version_on_the_host_is_fetched_whole(learner: Learner, store: WeightStore, tmp_path: Path) -> None:
    learner.carry()
    file = fetched(store, tmp_path / "actor") / FILE
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    made = learner.carry()
    assert same(fetched(store, tmp_path / "actor"), made)


def test_downloads_follow_and_ask_anew_for_what_is_damaged(
    learner: Learner, store: Unreliable, tmp_path: Path, broker: Broker
) -> None:
    following = Downloads(store, tmp_path / "actor")
    try:
        made = learner.carry()
        until(lambda: following.newest is not None, "the first version")
        # When what is in the broker is damaged for good
        broker._redis.hset(broker.key("weights:1-0:whole"), "0", b"damaged")
        damaged = learner.make()
        learner.uploader.offer(damaged)
        until(lambda: following.newest is not None and following.newest.step == 1, "the next one, by what changed")
        late = Downloads(Unreliable(broker.url, broker.run, "actor"), tmp_path / "another")
        until(lambda: late.newest is not None, "a whole version, made anew")
        assert late.newest and same(Path(late.newest.folder), damaged) and made.step == 0
        late.close()
    finally:
        following.close()


def test_an_actor_gives_up_when_nothing_ever_fits(learner: Learner, store: Unreliable, tmp_path: Path) -> None:
    learner.carry()
    store.share = 1.0
    store.random = type("Always", (), {"random": lambda _: 0.0, "integers": lambda _, n: 3 if n == 4 else 0})()  # type: ignore[assignment]
    following = Downloads(store, tmp_path / "actor")
    try:

        def over() -> bool:
            try:
                return following.newest is not None
            except WeightsError as error:
                return "5 versions in a row are not what was announced" in str(error)

        until(over, "the end of it")
    finally:
        following.close()
