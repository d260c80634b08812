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
from pathlib import Path

from common.errors import WeightsError
from common.schema import Carried, Part
from common.weights import chunks, folder, plan
from common.weights.manifest import Bytes
from common.weights.store import WeightStore

CONNECTIONS = 3
"""Chunks on their way at once: so that the next one follows at once where an answer takes long."""
KEEP = 2
"""Versions on the host: what is loaded, and what the next one is made from."""
LOCK_EVERY_S = TURN_EVERY_S = 0.1


class Gone(Exception):
    """A part was removed while it was fetched, or the caller wants no more: ask what is newest now."""


def fetch(store: WeightStore, carried: Carried, root: Path, go_on: Callable[[], bool]) -> Path:
    """Folder of the version under `root`, verified; of older ones KEEP - 1 stay. `go_on` is asked at every chunk.

    Raises Gone, WeightsError when what is in the broker does not make up what was announced, DiskFull.
    """
    policy = carried.policy
    target = folder.of(root, policy.incarnation, policy.step)
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root, go_on):
        if _is_here(target, carried):
            return target
        older = [
            (step, path)
            for by, step, path in folder.versions(root)
            if (by, step < policy.step) == (policy.incarnation, True)
        ]
        if older:
            try:
                return _build(store, carried, root, older[-1], go_on)
            except WeightsError:  # damaged here or there: a whole one needs neither
                pass
        return _build(store, carried, root, None, go_on)


def _build(
    store: WeightStore, carried: Carried, root: Path, base: tuple[int, Path] | None, go_on: Callable[[], bool]
) -> Path:
    policy, layout = carried.policy, carried.policy.manifest.layout
    parts = plan.to_read(carried.parts, policy.step, base and base[0])
    if parts is None:
        raise WeightsError(f"the broker at {store.shown} has no parts that make up step {policy.step}")
    draft = folder.Draft(root, policy.incarnation, policy.step)
    try:
        if base and (not parts or parts[0].base is not None):
            with folder.locked(base[1]) as older:
                tensors = draft.copy(layout, older)
        else:
            tensors = draft.reserve(layout)
        for part in parts:
            _apply(store, carried, part, tensors, go_on)
        folder.verify(draft.file, policy.manifest)
        folder.prune(root, KEEP - 1)
        return draft.publish()
    finally:
        draft.discard()


def _apply(
    store: WeightStore, carried: Carried, part: Part, tensors: Sequence[Bytes], go_on: Callable[[], bool]
) -> None:
    policy = carried.policy
    with _turn(store, part, go_on):
        for number, chunk in _ahead(lambda number: store.chunk(policy.incarnation, part, number), part.chunks):
            if chunk is None or not go_on():
                raise Gone
            if part.base is None:
                store.reads(part.step)
            chunks.apply(chunk, number, policy.manifest.layout, tensors)


@contextmanager
def _turn(store: WeightStore, part: Part, go_on: Callable[[], bool]) -> Iterator[None]:
    """Waits for it where a whole version is to be read, which stays there meanwhile."""
    if part.base is not None:
        yield
        return
    while not store.reads(part.step):
        if not go_on():
            raise Gone
        time.sleep(TURN_EVERY_S)
    try:
        yield
    finally:
        store.has_read(part.step)


def _ahead(get: Callable[[int], bytes | None], count: int) -> Iterator[tuple[int, bytes | None]]:
    """Number and chunk, in order, while the next CONNECTIONS are on their way."""
    with ThreadPoolExecutor(CONNECTIONS, "fetching") as pool:
        under_way: deque[Future[bytes | None]] = deque(
            pool.submit(get, number) for number in range(min(CONNECTIONS, count))
        )
        try:
            for number in range(count):
                chunk = under_way.popleft().result()
                if number + CONNECTIONS < count:
                    under_way.append(pool.submit(get, number + CONNECTIONS))
                yield number, chunk
        finally:
            for one in under_way:
                one.cancel()


def _is_here(target: Path, carried: Carried) -> bool:
    try:
        with folder.locked(target) as file:
            folder.verify(file, carried.policy.manifest)
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
