"""Keeps the engine on the newest policy: when to load it, what becomes of what is being sampled, whether it is right.

Completions that are being sampled go on with the new weights by default, their KV cache computed again: exact, and no
token is lost. `finish` lets them end first. `abort` begins them again, each once: what takes longer than the learner's
steps would never end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import structlog

from actors.engine import Engine
from actors.policy_source import PolicySource
from actors.rollout import Groups, version_key
from common.deliveries import Delivery
from common.errors import SamplerMismatch, WeightsError
from common.lifecycle import Every
from common.schema import Policy
from common.settings import Sections
from common.streams import Broker
from common.weights import folder
from common.weights.manifest import Manifest

POLL_S = 0.02
RETRY_S = 1.0
FAILURES = 10  # of one policy whose file is there and is another

log = structlog.get_logger("actor")


class Follower:
    """`follow` between any two steps of the engine; `restart` is called with what is to be sampled from its start."""

    def __init__(
        self, settings: Sections, broker: Broker, engine: Engine, groups: Groups, restart: Callable[[Delivery], None]
    ) -> None:
        self._way = settings.actor.on_new_weights
        self._bound = settings.actor.max_logprob_difference
        self._engine, self._groups, self._restart = engine, groups, restart
        self._source = PolicySource(settings, broker)
        self._poll = Every(POLL_S)
        self._failures = 0
        self._begun_again: set[str] = set()
        self.policy: Policy | None = None
        """What the engine samples from."""
        self.holds = False
        """Whether nothing new may be started, so that what is being sampled comes to its end."""
        self.missing = ""
        """Why the newest policy could not be loaded; empty when it was."""
        self.retry_at = 0.0
        """Of the monotonic clock; nothing is tried before."""
        self.worst_difference = 0.0
        """Of a log-probability from the learner's, over all loads."""
        self.load_s = 0.0
        """Seconds in which loading kept the engine from sampling."""

    @property
    def source(self) -> str:
        """Where weights come from: "folder", "broker" or "ring"."""
        return self._source.kind

    def follow(self, *, now: bool = False) -> None:
        """Loads the newest policy if there is one; `now`: without waiting for the next look.

        Raises WeightsError when what is there is again and again not what was announced, SamplerMismatch when the
        engine does not compute what the learner computes.
        """
        if (not self._poll.due() and not now) or time.monotonic() < self.retry_at:
            return
        newest = self._source.newest()
        if newest is None or (self.policy and version_key(newest) == version_key(self.policy)):
            self.holds = False
            return
        if self._way == "finish" and self._engine.busy:
            self.holds = True
            return
        begun = self._to_begin_again() if self._way == "abort" else []
        try:
            with ExitStack() as locks:
                file = _verified(locks, newest.folder, newest.manifest)
                below = newest.frozen and _verified(locks, newest.frozen.folder, newest.frozen.manifest)
                if begun:
                    self._engine.abort([delivery.name for delivery in begun])
                if newest.frozen and below:
                    times = self._engine.load(below.parent, version_key(newest), file, newest.frozen.scale)
                else:
                    times = self._engine.load(file.parent, version_key(newest))
        except WeightsError as error:
            self._not_loaded(newest, error)
        else:
            self.missing, self._failures, self.holds = "", 0, False
            self.policy = newest
            self.load_s += times.check + times.pause + times.load + times.resume
            self._check(newest)
        for delivery in begun:
            self._groups.give_up(delivery.name)
            self._restart(delivery)

    def close(self, *, over: bool) -> None:
        """`over`: so is the run."""
        self._source.close(over=over)

    def _to_begin_again(self) -> list[Delivery]:
        """What is being sampled and was not begun again before."""
        groups = self._groups.all()
        begun = [delivery for delivery in groups if delivery.name not in self._begun_again]
        self._begun_again = {delivery.name for delivery in groups}
        return begun

    def _not_loaded(self, policy: Policy, error: WeightsError) -> None:
        """Says so once, and tries again later; raises `error` when what is there was FAILURES times not the policy."""
        latest = self._source.newest()
        if latest and version_key(latest) != version_key(policy):
            return  # it was removed: the newer one is next
        self.retry_at = time.monotonic() + RETRY_S
        if self.missing != str(error):
            self.missing = str(error)
            log.error("weights not loaded, trying again", step=policy.step, why=str(error))
        if (Path(policy.folder) / folder.FILE).is_file():
            self._failures += 1
            if self._failures >= FAILURES:
                raise error

    def _check(self, policy: Policy) -> None:
        """The engine must compute what the learner computes: a difference is a wrong ratio in every token."""
        if not policy.check_ids:
            return
        try:
            ours = self._engine.prompt_logprobs([ids.tolist() for ids in policy.check_ids])
        except ValueError as error:
            raise SamplerMismatch(
                f"the engine cannot read the check sequences of step {policy.step} ({error}): "
                "same model folder and tokenizer on both sides?"
            ) from error
        worst = max(float(np.abs(a - b).max()) for a, b in zip(ours, policy.check_logprobs, strict=True))
        self.worst_difference = max(self.worst_difference, worst)
        log.debug("weights loaded", step=policy.step, logprob_difference=worst)
        if not worst <= self._bound:  # also for NaN
            raise SamplerMismatch(
                f"after loading step {policy.step} the engine's log-probabilities miss the learner's by {worst:.3g} "
                f"(actor.max_logprob_difference = {self._bound:g}): same model folder, tokenizer and dtype on both "
                "sides? bfloat16 on both needs about 0.15, against a learner in float32 up to 2 on improbable tokens"
            )


def _verified(locks: ExitStack, where: str, manifest: Manifest) -> Path:
    """The file there, which is not removed until the locks are given back. Raises WeightsError."""
    file = locks.enter_context(folder.locked(Path(where)))
    folder.verify(file, manifest)
    return file
