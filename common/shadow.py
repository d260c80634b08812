"""A shadow: a consumer group `shadow:NAME` that reads the scored groups of a run, owns none and holds nothing back.

It is given each group once and keeps no lease on it (NOACK), so it leaves nothing pending: what the run trims before
it came is counted as lost by the server, what a cut connection or a kill takes away is gone.
"""

from __future__ import annotations

import threading

import redis
import structlog

from common.backlog import lag_of
from common.deliveries import entries_of, message_of
from common.errors import BrokerError, BrokerUnavailable, SchemaError, ShadowError
from common.schema import Scored
from common.shared_state import SharedState
from common.untrusted import count
from common.waiting import Waiting

LIVING_S = 60  # a consumer that asked within so many seconds lives; one that scores asks seldom
PAUSE_S = 0.5

log = structlog.get_logger("shadow")


class Shadow(SharedState):
    """One shadow's access to a run: it changes its own group and nothing else."""

    def __init__(self, url: str, run: str, name: str, *, stop: threading.Event | None = None) -> None:
        super().__init__(url, run, "shadow", stop=stop)
        self.name = name
        self.group = f"shadow:{name}"

    def join(self, *, from_now: bool = False) -> bool:
        """Takes the name; True when a group of it was kept, which goes on where it was.

        A new one begins with what the stream still holds, or `from_now`. Raises ShadowError when a living shadow has
        the name, and BrokerUnavailable when it is stopped before there is a stream.
        """
        waiting = Waiting("shadow")
        args = [self.group, self.consumer, "$" if from_now else "0", 1000 * LIVING_S]
        while (answer := [part.decode() for part in self._script("shadow", ["scored"], args)]) == ["none"]:
            waiting.on(f"the stream {self.key('scored')}", until="the learner makes it")
            if self.stop.wait(PAUSE_S):
                raise BrokerUnavailable(f"there is no stream {self.key('scored')}; start the learner of the run")
        if answer[0] == "taken":
            ago = int(answer[2]) // 1000
            raise ShadowError(
                f"another shadow {self.name} of run {self.run} lives: {answer[1]} asked {ago} s ago; give another "
                f"--name, or wait {LIVING_S - ago} s if it was killed"
            )
        return answer == ["kept"]

    def read(self, most: int, block_ms: int) -> list[Scored | None]:
        """Up to `most` further groups, waiting at most `block_ms`; None for each message that is none of ours."""
        key, me = self.key("scored"), (self.group, self.consumer)
        found = entries_of(self._do("xreadgroup", *me, {key: ">"}, count=most, block=block_ms, noack=True))
        if not found:  # to Redis 7.0 a read that waits is no sign of life, one of what we hold (nothing) is
            self._do("xreadgroup", *me, {key: "0"}, count=1)
        return [self._group(entry, fields or {}) for entry, fields in found]

    def lag(self) -> int | None:
        """Groups that it was not given yet; None if the server cannot tell."""
        stream, infos = (self._do(command, self.key("scored")) for command in ("xinfo_stream", "xinfo_groups"))
        return next((lag_of(info, stream) for info in infos if info["name"] == self.group.encode()), None)

    def lost(self) -> int:
        """Groups that were trimmed before any shadow of this name was given them, as the server has counted so far."""
        return count(self._do("hget", self.key("lost"), f"scored {self.group}"))

    def leave(self, *, keep: bool) -> None:
        """Destroys the group, or keeps its place for the next start. Best effort: one that stays holds nothing back."""
        self.stop.set()  # a broker that is gone for good must not hold it
        try:
            if keep:
                self._do("xgroup_delconsumer", self.key("scored"), self.group, self.consumer)
            else:
                self._do("xgroup_destroy", self.key("scored"), self.group)
        except (BrokerError, redis.RedisError) as error:
            log.warning("left without a word to the broker", group=self.group, why=str(error))

    def _prepare(self) -> None:
        self.join()

    def _tell_full(self, what: str, seconds: float, until: str) -> None:
        """Nothing: whoever looks at the run sees its processes, and this is none of them."""

    def _group(self, entry: bytes, fields: dict[bytes, bytes]) -> Scored | None:
        try:
            message = message_of("scored", fields, self.run)
        except SchemaError as error:  # for the learner to bury
            log.warning("passed over: none of ours", entry=entry.decode(), why=str(error)[:400])
            return None
        assert isinstance(message, Scored)
        return message
