"""Puts versions of the policy into a broker, while some actor wants them from there: beside training, the newest only.

What changed since the version before goes there at every step, a whole version when `plan` says that it is due. Weights
give way to the streams: where there is no room the version is left out, and actors go on with the one that they have.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import structlog

from common.background import Background
from common.connection import BrokerFull
from common.errors import BrokerUnavailable, WeightsError
from common.schema import Carried, Part, Policy
from common.weights import chunks, folder, plan
from common.weights.manifest import Bytes, Layout
from common.weights.store import WeightStore, all_parts

LOOK_EVERY_S = 1.0
CONNECTIONS = 8
"""Chunks on their way at once: so that the next one follows at once where an answer takes long."""
KEEP = 16
"""Changes that stay behind the newest whole version, for actors that come late."""

log = structlog.get_logger("learner")


class Uploader:
    """A thread of its own; `offer` gives it the newest version."""

    def __init__(self, store: WeightStore, definition: Mapping[str, bytes]) -> None:
        """`definition` goes there with the first version."""
        self._store, self._definition = store, definition
        self._newest: Policy | None = None
        self._carried: Carried | None = None
        self._base = ExitStack()
        """Holds the lock on the file of the version that was carried last."""
        self._before: list[Bytes] = []
        """Its tensors, mapped."""
        self.figures: dict[str, float] = {}
        """Of the version that was carried last: carried_step, carried_mb, carried_seconds."""
        self._told: type[Exception] | None = None
        self._changed = threading.Event()
        self._pool = ThreadPoolExecutor(CONNECTIONS, "carrying")
        self._background = Background("uploading", self._run)
        self._background.start()

    def offer(self, policy: Policy) -> None:
        """Its file is in the folder that it names."""
        self._newest = policy
        self._changed.set()

    def check(self) -> None:
        """Raises what has ended the thread."""
        self._background.check()

    def close(self, *, over: bool) -> None:
        """Ends the thread after the chunk at hand. What is in the broker stays there until the run is over."""
        self._store.stop.set()  # else it would wait for a broker that is away
        self._background.closed.set()
        self._changed.set()
        self._background.close()
        self._pool.shutdown()
        self._base.close()
        if over:
            with suppress(BrokerUnavailable):  # then what is there expires
                self._store.clear()

    def _run(self) -> None:
        while not self._background.closed.is_set():
            self._changed.wait(LOOK_EVERY_S)
            self._changed.clear()
            if self._newest and (wanted := self._store.wanted()):
                self._carry(self._newest, anew=wanted == "anew")

    def _carry(self, policy: Policy, *, anew: bool) -> None:
        version = (policy.incarnation, policy.step)
        lost = self._carried and self._store.at() != (self._carried.policy.incarnation, self._carried.policy.step)
        if anew or lost or (self._carried and self._carried.policy.incarnation != policy.incarnation):
            self._forget()
        if self._carried and version == (self._carried.policy.incarnation, self._carried.policy.step):
            return
        lock = ExitStack()
        try:
            file = lock.enter_context(folder.locked(Path(policy.folder)))
            self._upload(policy, folder.views(file, policy.manifest.layout))
            self._base.close()
            self._base = lock.pop_all()
            self._told = None
        except (BrokerFull, WeightsError) as error:  # WeightsError: a newer version has taken its place
            if self._told is not type(error):  # once: the room that there is differs at every try
                self._told = type(error)
                log.warning("weights not carried by the broker, trying again", why=str(error))
        finally:
            lock.close()

    def _upload(self, policy: Policy, tensors: list[Bytes]) -> None:
        started = time.monotonic()
        layout, old = policy.manifest.layout, self._carried.parts if self._carried else []
        read_now = self._store.read_now()
        parts = list(old)
        due = plan.whole_is_due(parts, read_now)
        if self._carried:
            base = self._carried.policy.step
            made = chunks.changes(layout, self._before, tensors)
            parts.append(self._send(policy.incarnation, Part(policy.step, base, 0, 0), made))
        frozen = self._frozen(policy)
        if due:
            self._make_room(policy.manifest.layout)
            whole = Part(policy.step, None, 0, 0)
            parts.append(self._send(policy.incarnation, whole, chunks.whole(layout, tensors)))
        kept = plan.to_keep(parts, read_now, KEEP)
        carried = Carried(replace(policy, folder=""), kept, frozen)
        if not self._carried:
            self._store.define(self._definition)
        self._store.announce(carried)
        self._store.drop_all_but(carried)
        self._carried, self._before = carried, tensors
        written = sum(part.bytes for part in parts[len(old) :]) / 1e6
        self.figures = {
            "carried_step": float(policy.step),
            "carried_mb": written,
            "carried_seconds": time.monotonic() - started,
        }
        log.debug("weights carried", **self.figures)

    def _frozen(self, policy: Policy) -> Part | None:
        """The frozen weights, which go there once."""
        if policy.frozen is None or (self._carried and self._carried.frozen):
            return self._carried.frozen if self._carried else None
        layout = policy.frozen.manifest.layout
        self._make_room(layout)
        with folder.locked(Path(policy.frozen.folder)) as file:
            part = Part(0, None, 0, 0, frozen=True)
            return self._send(policy.incarnation, part, chunks.whole(layout, folder.views(file, layout)))

    def _make_room(self, layout: Layout) -> None:
        """Raises BrokerFull unless all of its tensors fit beside the streams."""
        needed, free = layout.data_bytes, max(0.0, self._store.free_bytes())
        if needed > free:
            raise BrokerFull(
                f"weights of {needed / 2**20:,.0f} MiB have no room beside the streams in the broker at "
                f"{self._store.shown}, where {free / 2**20:,.0f} are free for it; raise maxmemory, or set weights.url"
            )

    def _send(self, incarnation: int, part: Part, made: Iterator[bytes]) -> Part:
        """All chunks of a part, which are counted. Raises BrokerFull, and then nothing of it stays."""
        size, number = 0, 0
        self._store.drop(incarnation, [part])
        under_way: deque[Future[None]] = deque()
        try:
            for number, chunk in enumerate(made, 1):
                size += len(chunk)
                under_way.append(self._pool.submit(self._store.put, incarnation, part, number - 1, chunk))
                if number == 1 or len(under_way) > CONNECTIONS:  # the first one lists the part: see `put`
                    under_way.popleft().result()
                if self._background.closed.is_set():
                    raise WeightsError("the learner ends")
            while under_way:
                under_way.popleft().result()
        except (BrokerFull, WeightsError):
            for one in under_way:
                one.exception()
            self._store.drop(incarnation, [part])
            raise
        return replace(part, chunks=number, bytes=size)

    def _forget(self) -> None:
        """What is in the broker is of no use any more: the next version goes there whole."""
        if self._carried:
            self._store.drop(self._carried.policy.incarnation, all_parts(self._carried))
        self._carried, self._before = None, []
        self._base.close()
