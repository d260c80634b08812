"""What the processes of a run share beside the streams: fencing, the newest policy, sigma_bar, heartbeats, the end.

One key for each value:

    {run}:fence      incarnation of the living learner    {run}:procs  heartbeats
    {run}:learner    the consumer that it is              {run}:over   set once the run is over
    {run}:policy     newest published policy              {run}:sigma  sigma_bar, sigma_dev
    {run}:announced  its incarnation and step
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis
from redis.exceptions import RedisClusterException

from common import __version__
from common.connection import Connection
from common.errors import Fenced
from common.schema import Policy, pack
from common.sigma import Sigma
from common.untrusted import count, version

HEARTBEAT_TEXTS = (
    "role",
    "code",
    "checksum",
    "weights_from",
    "waits_for",
    "waits_until",
)  # all else in a heartbeat is a number


class SharedState(Connection):
    """What every process may read. Only the living learner announces a policy; an older one meets Fenced."""

    beat: Mapping[str, Any] = {"role": "starting"}
    """The last heartbeat."""

    def take_over(self, above: int = 0) -> int:
        """A fencing number for a new learner: every older one can no longer issue, close or announce.

        It is higher than `above`, the last one of a checkpoint: the broker may have lost what it knew.
        """
        while True:
            number = max(self._fence(), above) + 1
            if self._script("take_over", ["fence", "learner"], [number, self.consumer]):
                return number

    def begun(self) -> bool:
        """Whether a learner of this run has ever been here."""
        return bool(self._do("exists", self.key("fence")))

    def check_fence(self, incarnation: int) -> None:
        """Raises Fenced when a newer learner has taken over; one that only waits would not notice."""
        if self._fence() > incarnation:
            raise Fenced(f"a newer learner has taken over run {self.run}; this one stops")

    def _fence(self) -> int:
        """Incarnation of the living learner; 0 without one, and for what is none."""
        return count(self._do("get", self.key("fence")))

    def announce(self, policy: Policy) -> None:
        """Makes a policy the newest one."""
        args = [policy.incarnation, policy.step, pack(policy)]
        self._script("announce", ["policy", "fence", "announced"], args)

    def announced(self) -> tuple[int, int] | None:
        """Incarnation and step of the newest policy; None before the first."""
        return version(self._do("get", self.key("announced")))

    def policy(self) -> Policy | None:
        """The newest published policy; None before the first, and for what is none: the learner announces again."""
        return self._message("policy", Policy)

    def sigma(self) -> Sigma | None:
        """The shared running mean and deviation of sigma_u; None before the first group, and for what is none: they
        begin anew."""
        raw = self._do("get", self.key("sigma"))
        if raw is None:
            return None
        sigma = Sigma.read(raw)
        if sigma is None:
            self._tell_foreign("sigma", repr(raw[:40]))
        return sigma

    def restore_sigma(self, sigma: Sigma | None) -> None:
        """What a checkpoint has, only when the broker has none."""
        if sigma is not None:
            self._script("set_once", ["sigma"], [sigma.written()])

    def now_ms(self) -> int:
        """The server's clock, the only one that all hosts share."""
        return int(self._script("now", ["procs"], []))

    def heartbeat(self, state: Mapping[str, Any]) -> None:
        """Says that this process lives, and what it does."""
        self.beat = {"code": __version__, **state}
        self._script("heartbeat", ["procs"], [self.consumer, json.dumps(self.beat)])

    def _tell_full(self, what: str, seconds: float, until: str) -> None:
        waits = {"waits_for": f"room in the broker: {what}", "waits_s": seconds, "waits_until": until}
        with suppress(redis.RedisError, RedisClusterException):  # else it is away by now, and nobody can be told
            beat = [self.consumer, json.dumps({**self.beat, **waits})]
            self._scripts["heartbeat"](keys=[self.key("procs")], args=beat)

    def processes(self) -> dict[str, dict[str, Any]]:
        """Heartbeats by consumer, each with "heard_s", the seconds since."""
        found, now_s = {}, self.now_ms() / 1000
        for name, raw in self._do("hgetall", self.key("procs")).items():
            beat, _, text = raw.partition(b" ")
            try:
                state = json.loads(text)
                heard_s = max(0.0, now_s - int(beat[:12]))
            except (ValueError, RecursionError) as error:
                self._tell_foreign("procs", f"{name[:80]!r}: {type(error).__name__}")
                continue
            if _is_heartbeat(state):
                found[name.decode(errors="replace")] = state | {"heard_s": heard_s}
            else:
                self._tell_foreign("procs", f"{name[:80]!r}: no heartbeat")
        return found

    def finish(self) -> None:
        """Marks the run as over: workers leave."""
        self._script("set_once", ["over"], [1])

    def over(self) -> bool:
        return bool(self._do("exists", self.key("over")))

    def reopen(self) -> None:
        """A resumed run is not over."""
        self._do("delete", self.key("over"))


def _is_heartbeat(state: Any) -> bool:
    return (
        isinstance(state, dict)
        and isinstance(state.get("role"), str)
        and all(
            value is None or isinstance(value, str if name in HEARTBEAT_TEXTS else int | float)
            for name, value in state.items()
        )
    )
