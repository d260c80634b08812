"""Weights by the learner's broadcasts, for an actor in a ring (`learner.ring`): received into files beside sampling."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import structlog
import torch

from common.background import Background
from common.errors import SchemaError, WeightsError
from common.lifecycle import Every
from common.schema import Policy, Ring
from common.weights import folder
from common.weights.manifest import Manifest
from common.weights.meeting import BROKEN, BUCKET_BYTES, Group, Meeting
from common.weights.store import WISH_MS, WeightStore

LOOK_EVERY_S = 0.05
BUCKET_S = 30.0
"""For one bucket; longer than the sender's, which then is the one that says who is late."""
KEEP = 2

log = structlog.get_logger("actor")


class RingReceiver:
    """`newest` is the newest policy that came; a thread receives until `close`."""

    def __init__(self, store: WeightStore, root: Path) -> None:
        self._store, self._root = store, root
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._newest: Policy | None = None
        self._wish = Every(WISH_MS / 5000)
        self._background = Background("receiving", self._run)
        self._background.start()

    @property
    def newest(self) -> Policy | None:
        """Its folders are here. Raises what has ended the thread."""
        self._background.check()
        return self._newest

    def close(self) -> None:
        self._store.stop.set()
        self._background.close()

    def _run(self) -> None:
        left: Ring | None = None
        while self._go_on():
            ring = self._store.ring()
            if ring and ring != left and self._store.consumer in ring.members:
                self._take_part(ring)
                left = ring
            self._background.closed.wait(LOOK_EVERY_S)

    def _go_on(self) -> bool:
        if self._wish.due():
            self._store.wish(self._device)
        return not self._background.closed.is_set()

    def _take_part(self, ring: Ring) -> None:
        """Until the ring breaks, or another is asked for."""
        me, look = self._store.consumer, Every(1.0)
        host, _, port = ring.address.rpartition(":")
        meeting = None
        try:
            meeting = Meeting(host, int(port))
            meeting.say(f"here-{me}")
            group = meeting.form(ring.members.index(me) + 1, len(ring.members) + 1, ring.device)
            count = 0
            while self._go_on() and not (look.due() and self._store.ring() != ring):
                if meeting.said(BROKEN):
                    raise RuntimeError("the learner has given it up")
                if policy := meeting.policy(count):
                    self._newest = self._received(policy, group, ring, new=count == 0)
                    count += 1
                else:
                    self._background.closed.wait(LOOK_EVERY_S)
        except (RuntimeError, ValueError, SchemaError, WeightsError) as error:  # RuntimeError: torch's
            log.info("left a ring of actors", why=(str(error).splitlines() or ["no reason given"])[0][:200])
            if meeting:
                with suppress(RuntimeError):
                    meeting.say(f"left-{me}")

    def _received(self, policy: Policy, group: Group, ring: Ring, *, new: bool) -> Policy:
        frozen = policy.frozen
        if frozen:
            below = folder.of_frozen(self._root, policy.incarnation)
            if new:
                self._receive(below, frozen.manifest, group, ring)
            frozen = replace(frozen, folder=str(below))
        target = folder.of(self._root, policy.incarnation, policy.step)
        folder.prune(self._root, KEEP - 1)
        self._receive(target, policy.manifest, group, ring)
        return replace(policy, folder=str(target), frozen=frozen)

    def _receive(self, target: Path, manifest: Manifest, group: Group, ring: Ring) -> None:
        """A file, verified. Raises RuntimeError when it does not come, WeightsError when it is another."""
        draft = folder.Draft(target)
        try:
            draft.reserve(manifest.layout)
            whole = torch.from_numpy(np.memmap(draft.file, np.uint8, "r+"))
            for bucket in whole.split(BUCKET_BYTES):
                came = bucket if ring.device == "cpu" else torch.empty_like(bucket, device=ring.device)
                group.broadcast(came, BUCKET_S)
                if came is not bucket:
                    bucket.copy_(came)
            folder.verify(draft.file, manifest)
            draft.publish()
        finally:
            draft.discard()
