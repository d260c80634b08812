"""Sends versions of the policy to all actors of a ring at once, by broadcasts: gloo between CPUs, NCCL between GPUs.

Members come and go: for every change a new group is formed, apart from that of the ranks. Each call has a deadline. Who
does not come, or stops in the middle of a version, costs the others that once: the ring is formed again without it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import structlog
import torch

from common.address import local_host
from common.background import Background
from common.connection import BrokerFull
from common.errors import WeightsError
from common.schema import Policy, Ring
from common.weights import folder
from common.weights.manifest import Manifest
from common.weights.meeting import BROKEN, BUCKET_BYTES, Group, Meeting
from common.weights.store import WeightStore

LOOK_EVERY_S = 0.2
BUCKET_S = 20.0
"""For one bucket."""
SAY_S = 5.0
"""After a group broke, until those who are alive have said so."""
AWAY_S = 60.0
"""For so long who has failed is not asked again."""

log = structlog.get_logger("learner")


class RingSender:
    """A thread of its own; `offer` gives it the newest version. Nothing happens while no actor wishes for a ring."""

    def __init__(self, store: WeightStore) -> None:
        self._store = store
        self._host = local_host(store.url) or "127.0.0.1"
        self._newest: Policy | None = None
        self._sent: tuple[int, int] | None = None
        self._ring: Ring | None = None
        self._meeting: Meeting | None = None
        self._group: Group | None = None
        self._count = 0
        """Versions that went through this group."""
        self._away: dict[str, float] = {}
        self._background = Background("sending", self._run)
        self._background.start()

    def offer(self, policy: Policy) -> None:
        """Its file is in the folder that it names."""
        self._newest = policy

    def check(self) -> None:
        """Raises what has ended the thread."""
        self._background.check()

    def close(self) -> None:
        self._store.stop.set()
        self._background.close()

    def _run(self) -> None:
        try:
            while not self._background.closed.wait(LOOK_EVERY_S):
                if self._newest:
                    self._turn(self._newest)
        finally:
            self._end_group()

    def _turn(self, policy: Policy) -> None:
        device, members = self._wanted()
        if not members:
            self._end_group()
            return
        known = self._ring and self._group and (self._ring.device, self._ring.members) == (device, members)
        version = (policy.incarnation, policy.step)
        if known and version == self._sent:
            return
        try:
            if not known:
                self._form(policy.incarnation, device, members)
            self._send(policy)
            self._sent = version
            return
        except (RuntimeError, WeightsError, BrokerFull) as error:  # RuntimeError: torch's, for every way to fail
            why = (str(error).splitlines() or ["no reason given"])[0][:200]
            log.warning("the ring broke, it is formed again", members=len(members), why=why)
        # Not while the error is at hand: it holds the group, whose end is what others notice who wait in it
        self._excuse()
        self._end_group()

    def _wanted(self) -> tuple[str, list[str]]:
        """Device and members: of actors that differ in theirs those with GPUs, where this process has one."""
        now = time.monotonic()
        wishes = [(device, name) for device, name in self._store.wishes() if self._away.get(name, 0.0) < now]
        device = "cuda" if torch.cuda.is_available() and any(device == "cuda" for device, _ in wishes) else "cpu"
        return device, [name for wish, name in wishes if wish == device]

    def _form(self, incarnation: int, device: str, members: list[str]) -> None:
        self._end_group()
        self._meeting = Meeting(self._host)
        generation = (self._ring.generation if self._ring else 0) + 1
        self._ring = Ring(generation, self._meeting.address, "cuda" if device == "cuda" else "cpu", members)
        self._store.announce_ring(self._ring, incarnation)
        self._group = self._meeting.form(0, len(members) + 1, device)
        self._count = 0
        log.info("a ring of actors gets weights together", members=len(members), device=device)

    def _send(self, policy: Policy) -> None:
        """To a group that is new also what is frozen."""
        assert self._meeting
        self._meeting.send(self._count, policy)
        if policy.frozen and self._count == 0:
            self._send_file(policy.frozen.folder, policy.frozen.manifest)
        self._count += 1
        self._send_file(policy.folder, policy.manifest)

    def _send_file(self, where: str, manifest: Manifest) -> None:
        assert self._ring and self._group
        with folder.locked(Path(where)) as file:
            for bucket in _buckets(file, manifest.layout.file_bytes):
                self._group.broadcast(bucket.to(self._ring.device), BUCKET_S)

    def _excuse(self) -> None:
        """Who had not come, or says nothing now that it broke, is not asked again for a while."""
        if not (self._ring and self._meeting):
            return
        said = "here" if self._group is None else "left"
        self._group = None
        self._meeting.say(BROKEN)
        ends = time.monotonic() + (0.0 if said == "here" else SAY_S)
        silent = self._ring.members
        while silent and time.monotonic() < ends:
            silent = [member for member in silent if not self._meeting.said(f"{said}-{member}")]
            self._background.closed.wait(0.1)
        silent = [member for member in silent if not self._meeting.said(f"{said}-{member}")]
        self._away |= {member: time.monotonic() + AWAY_S for member in silent}

    def _end_group(self) -> None:
        self._group = self._meeting = None
        self._sent = None


def _buckets(file: Path, size: int) -> Iterator[torch.Tensor]:
    """uint8 [up to BUCKET_BYTES] each, of the whole file."""
    whole = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)
    return iter(whole.split(BUCKET_BYTES))
