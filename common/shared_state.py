"""What the processes of a run share beside the streams: fencing, the newest policy, sigma_bar, heartbeats, the end.

One key for each value:

    {run}:fence    incarnation of the living learner     {run}:procs  heartbeats
    {run}:policy   newest published policy               {run}:over   set once the run is over
    {run}:sigma    sigma_bar
"""

from __future__ import annotations

import json
import time
from typing import Any

from common.connection import Connection
from common.errors import Fenced, SchemaError
from common.schema import Policy, pack, unpack


class SharedState(Connection):
    """What every process may read. Only the living learner announces a policy; an older one meets Fenced."""

    def take_over(self, above: int = 0) -> int:
        """A fencing number for a new learner: every older one can no longer issue, close or announce.

        It is higher than `above`, the last one of a checkpoint: the broker may have lost what it knew.
        """
        return int(self._script("take_over", ["fence"], [above]))

    def begun(self) -> bool:
        """Whether a learner of this run has ever been here."""
        return bool(self._do("exists", self.key("fence")))

    def check_fence(self, incarnation: int) -> None:
        """Raises Fenced when a newer learner has taken over; one that only waits would not notice."""
        if int(self._do("get", self.key("fence")) or 0) > incarnation:
            raise Fenced(f"a newer learner has taken over run {self.run}; this one stops")

    def announce(self, policy: Policy) -> None:
        """Makes a policy the newest one."""
        self._script("announce", ["policy", "fence"], [policy.incarnation, pack(policy)])

    def policy(self) -> Policy | None:
        """The newest published policy; None before the first."""
        raw = self._do("get", self.key("policy"))
        if raw is None:
            return None
        message = unpack(raw)
        if not isinstance(message, Policy):
            raise SchemaError(f"{self.key('policy')} holds a {message.KIND}")
        return message

    def sigma_bar(self) -> float | None:
        """The shared running mean of sigma_u; None before the first group."""
        raw = self._do("get", self.key("sigma"))
        return None if raw is None else float(raw)

    def restore_sigma(self, sigma_bar: float | None) -> None:
        """sigma_bar from a checkpoint, only when the broker has none."""
        if sigma_bar is not None:
            self._do("setnx", self.key("sigma"), repr(sigma_bar))

    def heartbeat(self, state: dict[str, Any]) -> None:
        """Says that this process lives, and what it does."""
        text = json.dumps({"time": time.time(), **state})
        self._do("hset", self.key("procs"), self.consumer, text)

    def processes(self) -> dict[str, dict[str, Any]]:
        """Heartbeats by consumer."""
        raw = self._do("hgetall", self.key("procs"))
        return {name.decode(): json.loads(text) for name, text in raw.items()}

    def finish(self) -> None:
        """Marks the run as over: workers leave."""
        self._do("set", self.key("over"), 1)

    def over(self) -> bool:
        return bool(self._do("exists", self.key("over")))

    def reopen(self) -> None:
        """A resumed run is not over."""
        self._do("delete", self.key("over"))
