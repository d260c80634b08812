"""Commits: the learner's state made durable in a checkpoint, then the tickets closed whose effect it holds.

Until then a ticket that was trained on, dropped or given up stays open in the broker, so that a crash loses nothing.
A commit is due by steps, by seconds or by the bytes that wait in the broker, whichever comes first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgpack
import structlog

from common.errors import BrokerUnavailable, CheckpointError
from common.settings import Sections
from common.sigma import Sigma
from common.streams import Broker
from learner import checkpoint
from learner.ledger import Ledger
from learner.policy import Policy
from learner.room import Room

log = structlog.get_logger("learner")


@dataclass(frozen=True)
class Committed:
    """What the last commit holds besides the policy and sigma, which `restore` puts in their place."""

    step: int
    incarnation: int
    ledger: Ledger
    rm_auroc: float | None
    """Running mean of `learner.reliability`."""


class Committer:
    """`settle` what is decided, `commit` when it is `due`, `restore` after a restart."""

    def __init__(self, settings: Sections, broker: Broker, policy: Policy, room: Room) -> None:
        self._broker = broker
        self._policy = policy
        self._room = room
        self._folder = settings.run.folder / "checkpoints"
        self._options = settings.learner
        self._settled: list[tuple[int, int, str]] = []
        self._settled_bytes = 0
        self._sigma: Sigma | None = None
        self._step = 0
        self._last = time.monotonic()

    @property
    def settled(self) -> int:
        """Number of settled results that wait for the next commit."""
        return len(self._settled)

    @property
    def ids(self) -> set[int]:
        """The tickets that close with the next commit."""
        return {id for id, _, _ in self._settled}

    @property
    def entries(self) -> set[str]:
        """The messages that wait for the next commit."""
        return {entry for _, _, entry in self._settled if entry}

    def settle(self, id: int, attempt: int, entry: str = "", size_bytes: int = 0) -> None:
        """Takes a result to close with the next commit. Id -1 closes no ticket, entry "" acknowledges no message."""
        self._settled.append((id, attempt, entry))
        self._settled_bytes += size_bytes

    def due(self, step: int) -> bool:
        """Whether it is time for a commit at `step`."""
        o = self._options
        by_steps = step - self._step >= o.checkpoint_every_steps
        by_seconds = bool(self._settled) and time.monotonic() - self._last > o.checkpoint_every_seconds
        by_bytes = self._settled_bytes > o.checkpoint_every_mb * 2**20
        return by_steps or by_seconds or by_bytes

    def commit(self, step: int, incarnation: int, ledger: Ledger, rm_auroc: float | None) -> None:
        """Makes the state durable, then closes what is settled.

        On a full disk the last good checkpoint and the open tickets stay, and this waits.
        """
        started = time.monotonic()
        sigma = self._keep_sigma()
        state = msgpack.packb(
            {
                "run": self._broker.run,
                "sigma": None if sigma is None else [sigma.bar, sigma.dev],
                "rm_auroc": rm_auroc,
                "ledger": ledger.dump(),
            }
        )
        keep, save = self._options.keep_checkpoints, self._policy.save
        saved = self._room.write(lambda: checkpoint.save(self._folder, incarnation, step, save, state, keep))
        if saved is None:
            return  # told to stop: what is settled stays open, and the next learner does it again
        self._step, self._last = step, time.monotonic()
        self._broker.close(incarnation, self._settled)
        self._settled, self._settled_bytes = [], 0
        self._broker.trim()
        log.info("checkpoint", step=step, seconds=round(time.monotonic() - started, 2))

    def _keep_sigma(self) -> Sigma | None:
        """The shared sigma, or what it was when the broker has lost it (and learns it again) or is away for good."""
        try:
            sigma = self._broker.sigma()
            if sigma is None:
                self._broker.restore_sigma(self._sigma)
            else:
                self._sigma = sigma
        except BrokerUnavailable:  # told to stop, and nobody answers: the checkpoint needs none
            pass
        return self._sigma

    def restore(self) -> Committed | None:
        """Loads the newest whole checkpoint into policy and broker; None without one. CheckpointError if foreign."""
        found = checkpoint.latest(self._folder)
        if found is None:
            return None
        self._policy.load(found.policy)
        state = msgpack.unpackb(found.state)
        if state["run"] != self._broker.run:
            raise CheckpointError(f"{found.folder} belongs to run {state['run']}, this is {self._broker.run}")
        ledger = Ledger.restored(state["ledger"])
        self._step = found.step
        self._sigma = None if state["sigma"] is None else Sigma(*state["sigma"])
        self._broker.restore_sigma(self._sigma)
        log.info("resumed", checkpoint=str(found.folder), step=self._step, **ledger.counts())
        return Committed(self._step, found.incarnation, ledger, state["rm_auroc"])
