"""A version out of the broker into a folder of this host's own: whole, or by what changed since one that is there.

The processes of a host share the folder: one of them fetches, the others find the version there.
"""

from __future__ import annotations

import fcntl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import WeightsError
from common.lifecycle import Every
from common.schema import Carried, Part, Policy
from common.weights import chunks, folder, plan
from common.weights.manifest import Bytes, Layout, Manifest
from common.weights.relay import Wanted, take
from common.weights.store import READING_MS, WeightStore

CONNECTIONS = 8
"""Chunks on their way at once: so that the next one follows at once where an answer takes long."""
KEEP = 2
"""Versions on the host: what is loaded, and what the next one is made from."""
LOCK_EVERY_S = TURN_EVERY_S = 0.1


class Gone(Exception):
    """A part was removed while it was fetched, or the caller wants no more: ask what is newest now."""


def fetch(store: WeightStore, carried: Carried, root: Path, go_on: Callable[[], bool]) -> Policy:
    """The policy, verified, its folders under `root`, where KEEP - 1 older ones stay. `go_on` is asked at every chunk.

    Raises Gone, WeightsError when what is in the broker does not make up what was announced, DiskFull.
    """
    policy = carried.policy
    root.mkdir(parents=True, exist_ok=True)
    fetching = _Fetching(store, policy.incarnation, go_on)
    target = folder.of(root, policy.incarnation, policy.step)
    with _alone(root, go_on):
        if policy.frozen and carried.frozen:
            below = folder.of_frozen(root, policy.incarnation)
            if not _is_here(below, policy.frozen.manifest):
                fetching.from_a_relay(lambda _: below, policy.frozen.manifest, 0, carried.frozen)
            if not _is_here(below, policy.frozen.manifest):
                fetching.build(below, policy.frozen.manifest, [carried.frozen], None)
            policy = replace(policy, frozen=replace(policy.frozen, folder=str(below)))
        if not _is_here(target, policy.manifest):
            _version(fetching, carried, root, target)
    return replace(policy, folder=str(target))


def _version(fetching: _Fetching, carried: Carried, root: Path, target: Path) -> None:
    """By what changed since the newest one here, or whole."""
    policy = carried.policy
    folder.prune(root, KEEP - 1)
    if not _here(root, policy) and (way := plan.to_read(carried.parts, policy.step, None)):
        fetching.from_a_relay(
            lambda step: folder.of(root, policy.incarnation, step), policy.manifest, policy.step, way[0]
        )
        if _is_here(target, policy.manifest):
            return
    for step, path in (*_here(root, policy)[-1:], (None, None)):
        parts = plan.to_read(carried.parts, policy.step, step)
        if parts is None:
            raise WeightsError(f"the broker has no parts that make up step {policy.step}")
        try:
            return fetching.build(target, policy.manifest, parts, path)
        except WeightsError:  # damaged here or there: a whole one needs neither
            if path is None:
                raise


def _here(root: Path, policy: Policy) -> list[tuple[int, Path]]:
    """Step and folder of that learner's versions, the oldest first."""
    return [(step, path) for by, step, path in folder.versions(root) if by == policy.incarnation]


@dataclass(frozen=True)
class _Fetching:
    store: WeightStore
    incarnation: int
    go_on: Callable[[], bool]

    def from_a_relay(self, target: Callable[[int], Path], manifest: Manifest, step: int, whole: Part) -> None:
        """What another host gives, until it is this one's turn to read `whole` from the broker."""
        while True:
            for address in self.store.relays():
                wanted = Wanted(self.incarnation, step, whole.frozen, manifest.layout.file_bytes)
                if take(address, self.store.secret(), wanted, target):
                    return
            if self.store.reads(whole.step):
                return
            if not self.go_on():
                raise Gone
            time.sleep(TURN_EVERY_S)

    def build(self, target: Path, manifest: Manifest, parts: Sequence[Part], base: Path | None) -> None:
        """Weights in a folder; the first part is a whole one, or what changed since those in `base`."""
        draft = folder.Draft(target)
        try:
            if base and (not parts or parts[0].base is not None):
                with folder.locked(base) as file:
                    tensors = draft.copy(manifest.layout, file)
            else:
                tensors = draft.reserve(manifest.layout)
            for part in parts:
                with self._turn(part):
                    self._apply(part, manifest.layout, tensors)
            folder.verify(draft.file, manifest)
            draft.publish()
        finally:
            draft.discard()

    def _apply(self, part: Part, layout: Layout, tensors: Sequence[Bytes]) -> None:
        say_so = Every(READING_MS / 3000)
        for number, chunk in _ahead(lambda number: self.store.chunk(self.incarnation, part, number), part.chunks):
            if chunk is None or not self.go_on():
                raise Gone
            if part.base is None and say_so.due():
                self.store.reads(part.step)
            chunks.apply(chunk, number, layout, tensors)

    @contextmanager
    def _turn(self, part: Part) -> Iterator[None]:
        """Waits for it where a whole version is to be read, which stays there meanwhile."""
        if part.base is not None:
            yield
            return
        while not self.store.reads(part.step):
            if not self.go_on():
                raise Gone
            time.sleep(TURN_EVERY_S)
        try:
            yield
        finally:
            self.store.has_read(part.step)


def _ahead(get: Callable[[int], bytes | None], count: int) -> Iterator[tuple[int, bytes | None]]:
    """Number and chunk, in order, while the next CONNECTIONS are on their way."""
    with ThreadPoolExecutor(CONNECTIONS, "fetching") as pool:
        first = range(min(CONNECTIONS, count))
        under_way: deque[Future[bytes | None]] = deque(pool.submit(get, number) for number in first)
        try:
            for number in range(count):
                chunk = under_way.popleft().result()
                if number + CONNECTIONS < count:
                    under_way.append(pool.submit(get, number + CONNECTIONS))
                yield number, chunk
        finally:
            for one in under_way:
                one.cancel()


def _is_here(target: Path, manifest: Manifest) -> bool:
    try:
        with folder.locked(target) as file:
            folder.verify(file, manifest)
    except WeightsError:
        return False
    return True


@contextmanager
def _alone(root: Path, go_on: Callable[[], bool]) -> Iterator[None]:
    """One process of the host at a time; the lock of one that dies is free."""
    with (root / ".fetching").open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not go_on():
                    raise Gone from None
                time.sleep(LOCK_EVERY_S)
        yield
