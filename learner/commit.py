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
from common.lanes import LANES, Lane
from common.settings import Sections
from common.sigma import Sigma
from common.streams import Broker
from learner import checkpoint
from learner.ledger import Ledger
from learner.room import Room
from learner.score import Score
from learner.team import Team

log = structlog.get_logger("learner")


@dataclass(frozen=True)
class Committed:
    """What a commit holds besides the policy and sigma, which `restore` puts in their place."""

    step: int
    incarnation: int
    ledger: Ledger
    rm_auroc: float | None
    """Running mean of `learner.reliability`."""
    prompts: bytes | None
    """State of `learner.curriculum`; None where the order of prompts has none."""
    evaluation: bytes
    """As `learner.evaluation` wrote it."""


class Committer:
    """`settle` what is decided, `commit` when it is `due`, `restore` after a restart."""

    def __init__(self, settings: Sections, broker: Broker, policy: Team, room: Room) -> None:
        self._broker = broker
        self._policy = policy
        self._room = room
        self._folder = settings.run.folder / "checkpoints"
        self._options = settings.learner
        self._settled: dict[Lane, list[tuple[int, int, str]]] = {lane: [] for lane in LANES}
        self._settled_bytes = 0
        self._sigma: Sigma | None = None
        self._step = 0
        self._last = time.monotonic()
        self._seconds = 0.0

    @property
    def settled(self) -> int:
        """Number of settled results that wait for the next commit."""
        return sum(map(len, self._settled.values()))

    def ids(self, lane: Lane) -> set[int]:
        """The tickets that close with the next commit."""
        return {id for id, _, _ in self._settled[lane]}

    def entries(self, lane: Lane) -> set[str]:
        """The messages that wait for the next commit."""
        return {entry for _, _, entry in self._settled[lane] if entry}

    def settle(self, lane: Lane, id: int, attempt: int, entry: str = "", size_bytes: int = 0) -> None:
        """Takes a result to close with the next commit. Id -1 closes no ticket, entry "" acknowledges no message."""
        self._settled[lane].append((id, attempt, entry))
        self._settled_bytes += size_bytes

    def due(self, step: int) -> bool:
        """Whether it is time for a commit at `step`."""
        o = self._options
        by_steps = step - self._step >= o.checkpoint_every_steps
        by_seconds = bool(self.settled) and time.monotonic() - self._last > o.checkpoint_every_seconds
        by_bytes = self._settled_bytes > o.checkpoint_every_mb * 2**20
        return by_steps or by_seconds or by_bytes

    def commit(self, now: Committed, score: Score | None) -> bool:
        """Makes the state durable, then closes what is settled; whether that was done. `score` is what it is worth.

        On a full disk the last good checkpoint and the open tickets stay, and this waits; told to stop meanwhile it
        gives up.
        """
        started = time.monotonic()
        sigma = self._keep_sigma()
        state = msgpack.packb(
            {
                "run": self._broker.run,
                "sigma": None if sigma is None else [sigma.bar, sigma.dev],
                "rm_auroc": now.rm_auroc,
                "ledger": now.ledger.dump(),
                "prompts": now.prompts,
                "evaluation": now.evaluation,
            }
        )
        keep, save = self._options.keep_checkpoints, self._policy.save
        where = self._folder, now.incarnation, now.step
        best = {"score": score, "export": self._policy.export} if self._options.keep_best else {}
        saved = self._room.write(lambda: checkpoint.save(*where, save, state, keep, **best))
        if saved is None:
            return False  # what is settled stays open, and the next learner does it again
        self._step, self._last = now.step, time.monotonic()
        for lane, settled in self._settled.items():
            self._broker.close(now.incarnation, settled, lane)
            settled.clear()
        self._settled_bytes = 0
        self._broker.trim()
        seconds = time.monotonic() - started
        self._seconds += seconds
        log.info("checkpoint", step=now.step, seconds=round(seconds, 2))
        return True

    def take_seconds(self) -> float:
        """Wall seconds of the commits since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

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
        state = msgpack.unpackb(found.state)
        if state["run"] != self._broker.run:
            raise CheckpointError(
                f"{found.folder} belongs to run {state['run']}, this is {self._broker.run}; set run.folder to that of "
                "this run, or to a new one"
            )
        self._policy.load(found.policy)
        ledger = Ledger.restored(state["ledger"])
        self._step = found.step
        self._sigma = None if state["sigma"] is None else Sigma(*state["sigma"])
        self._broker.restore_sigma(self._sigma)
        log.info("resumed", checkpoint=str(found.folder), step=self._step, **ledger.counts())
        auroc, prompts, evaluation = (state[name] for name in ("rm_auroc", "prompts", "evaluation"))
        return Committed(self._step, found.incarnation, ledger, auroc, prompts, evaluation)
