"""The connection to the broker of a run: its keys, the check of the server, waiting while that is away or full.

Beside `common.server`, only this module and what builds on its class speak Redis.
"""

from __future__ import annotations

import math
import os
import re
import socket
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, TypeVar

import redis
import structlog
from redis.backoff import ConstantBackoff
from redis.exceptions import ClusterDownError, NoScriptError, ReadOnlyError, RedisClusterException, TryAgainError
from redis.retry import Retry

from common.address import client_of, infos, is_cluster, shown
from common.errors import BrokerUnavailable, BrokerUnfit, Fenced, SchemaError
from common.fitness import faults, numbers, version_of
from common.schema import Message, unpack

CHECK_PAUSE_S = 0.3  # between the tries at start: a connection that was cut, a server that is restarted
SAY_AFTER_S = 5.0  # a wait that lasts longer is told in the log

# What failovers, restarts and reshardings bring: redis-py has kinds of its own for some, and takes their code away.
_PASSING_KINDS = (ReadOnlyError, ClusterDownError, TryAgainError, NoScriptError)
_PASSING_CODES = ("READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS", "UNBLOCKED")
_LOST = ("NOGROUP", "no such key", "key no longer exists")  # the last one ends a blocked read of Redis 7.0
_NO_RIGHT = ("ACL failure in script", "The user executing the script can't")  # the latter by Redis 7.0
KINDS = {
    "tickets": "stream",
    "rollouts": "stream",
    "scored": "stream",
    "dead": "stream",
    "open": "hash",
    "procs": "hash",
    "fence": "string",
    "learner": "string",
    "announced": "string",
    "issued": "string",
    "policy": "string",
    "sigma": "string",
    "lost": "hash",
    "steps": "list",
    "groups": "list",
    "eval:tickets": "stream",
    "eval:rollouts": "stream",
    "eval:scored": "stream",
    "eval:open": "hash",
    "eval:issued": "string",
    "carried": "string",
    "carried:fence": "string",
    "carried:at": "string",
    "weights:wanted": "string",
    "weights:parts": "set",
    "reading": "zset",
    "ring": "string",
    "ring:fence": "string",
    "ring:at": "string",
    "ring:wishes": "zset",
    "relays": "zset",
    "relays:secret": "string",
    "model": "hash",
}
"""What the keys of a run hold."""
_RUN = re.compile(rb"\{([A-Za-z0-9_.-]{1,96})\}:fence")
LAST_ENTRY = b"18446744073709551615-18446744073709551615"

R = TypeVar("R")
M = TypeVar("M", bound=Message)
log = structlog.get_logger("connection")


class BrokerFull(BrokerUnavailable):
    """maxmemory is reached: back-pressure, not a failure."""


class Connection(ABC):
    """One process's connection to a run. Waits out an absent or full server (and says so) until `stop` is set."""

    patience_s = 5.0
    """How long then: for a connection that is cut while a worker drains, not for a server that is gone for good."""

    def __init__(self, url: str, run: str, role: str, *, stop: threading.Event | None = None) -> None:
        self.url = url
        self.shown = shown(url)
        """The address as messages may show it."""
        self.run = run
        self.consumer = f"{role}-{socket.gethostname()[:64]}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.stop = stop or threading.Event()
        self.turned_at = time.monotonic()
        """When the process's main thread last asked the broker for anything, or tried to."""
        self._told: dict[str, str] = {}
        try:
            self._redis = client_of(url)
        except ValueError as error:
            raise BrokerUnavailable(f"broker.url = {self.shown!r}: {error}; e.g. redis://host:6379/0") from error
        except (redis.RedisError, RedisClusterException) as error:
            raise self._unanswered(error) from error
        self._scripts = {
            file.name.removesuffix(".lua"): self._redis.register_script(file.read_text())
            for file in (resources.files("common") / "lua").iterdir()
            if file.name.endswith(".lua")
        }

    def key(self, name: str) -> str:
        """The hash tag {run} keeps a run's keys on one node of a cluster, so that scripts may touch several."""
        return f"{{{self.run}}}:{name}"

    @abstractmethod
    def _prepare(self) -> None:
        """Creates what commands need to find: at `check`, and again on a server that lost its data."""

    def check(self) -> str:
        """`fit`, and what the commands need is there."""
        version = self.fit()
        self._prepare()
        return version

    def fit(self) -> str:
        """Version of the server. Raises BrokerUnavailable or BrokerUnfit with the remedy; changes nothing."""
        try:
            servers = Retry(ConstantBackoff(CHECK_PAUSE_S), 3).call_with_retry(
                lambda: infos(self._redis), lambda _: None
            )
        except redis.AuthenticationError as error:
            raise BrokerUnavailable(
                f"the broker at {self.shown} refuses the login: {error}; set user and password in the URL"
            ) from error
        except (redis.RedisError, RedisClusterException) as error:
            raise self._unanswered(error) from error
        for fault in (fault for info in servers for fault in faults(info)):
            raise BrokerUnfit(f"the broker at {self.shown} {fault.what}; {fault.remedy}")
        return min(map(version_of, servers), key=numbers)

    def _unanswered(self, error: Exception) -> BrokerUnavailable:
        """What whoever starts a process is told when nobody answers it."""
        remedy = "start it, or set broker.url or REDIS_URL (redis:// without TLS, rediss:// with it)"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            remedy = "give the authority of its certificate, ?ssl_ca_certs=FILE, and the host that it is made out to"
        return BrokerUnavailable(f"no broker answers at {self.shown}: {error}; {remedy}")

    @abstractmethod
    def _tell_full(self, what: str, seconds: float, until: str) -> None:
        """Says in the heartbeat that this process waits for room."""

    def _wait_for(self, what: str, call: Callable[[], R], raises: tuple[type[BrokerUnavailable], ...] = ()) -> R:
        """Result of `call`; waits while the server is away or full: `patience_s` at most once we were asked to stop.

        It is called again then: scripts are idempotent, and a read that is repeated leaves a lease behind.
        What is in `raises` is raised instead of waited for.
        """
        since = time.monotonic()
        ends = math.inf
        say_at, said = since + SAY_AFTER_S, False
        pause = 0.05
        while True:
            if threading.current_thread() is threading.main_thread():
                self.turned_at = time.monotonic()
            try:
                result = call()
            except redis.ResponseError as error:
                if any(words in str(error) for words in _LOST):
                    self._prepare()  # the broker lost its data; the learner will issue again what is missing
                    continue
                failure, remedy = self._passing(error)
            except (redis.ConnectionError, redis.TimeoutError, RedisClusterException) as error:
                failure = BrokerUnavailable(f"no broker answers at {self.shown}: {error}")
                remedy = "goes on when it answers again"
            else:
                if said:
                    log.info("wait over", waited_for=what, seconds=round(time.monotonic() - since, 1))
                return result
            if self.stop.is_set():
                ends = min(ends, time.monotonic() + self.patience_s)
            if isinstance(failure, raises) or time.monotonic() > ends:
                raise failure
            if time.monotonic() > say_at:
                if not said:
                    log.warning("waiting for the broker", doing=what, why=str(failure), until=remedy)
                say_at, said = time.monotonic() + SAY_AFTER_S, True
                if isinstance(failure, BrokerFull):
                    self._tell_full(what, time.monotonic() - since, remedy)
            (self.stop.wait if ends == math.inf else time.sleep)(pause)
            pause = min(2 * pause, 1.0)

    def _passing(self, error: redis.ResponseError) -> tuple[BrokerUnavailable, str]:
        """What an answer of the server means, and what ends it; raises, ours or `error`, when waiting does not."""
        text = str(error).rpartition(" of pipeline caused error: ")[2]
        if isinstance(error, redis.OutOfMemoryError) or "OOM" in text:
            full = BrokerFull(f"the broker at {self.shown} is at maxmemory: {error}")
            return full, "goes on when trained groups are checkpointed and trimmed, or when maxmemory is raised"
        if text.startswith("MISCONF"):
            failure = BrokerUnavailable(f"the broker at {self.shown} cannot write its file: {error}")
            return failure, "goes on when the disk under the server has room again"
        if isinstance(error, _PASSING_KINDS) or text.startswith(_PASSING_CODES):
            failure = BrokerUnavailable(f"the broker at {self.shown} cannot answer yet: {error}")
            return failure, "goes on when it has a primary again"
        if isinstance(error, redis.exceptions.NoPermissionError) or any(words in text for words in _NO_RIGHT):
            raise BrokerUnfit(
                f"the user in broker.url has not the rights of its role at {self.shown}: {error}; see hero acl"
            ) from error
        if "FENCED" in text:
            raise Fenced(f"a newer learner has taken over run {self.run}; this one stops") from error
        if "WRONGTYPE" in text or "exhausted the last possible ID" in text:
            raise BrokerUnfit(self._spoiled() or f"{self.shown}: {error}") from error
        raise error

    def _spoiled(self) -> str:
        """Which keys of this run no process of ours can have left as they are, and the remedy; "" if none is."""
        spoiled = {}
        for key, kind in ((self.key(name), kind) for name, kind in KINDS.items()):
            holds = self._do("type", key).decode()
            if holds not in (kind, "none"):
                spoiled[key] = f"holds a {holds}, not a {kind}"
            elif holds == "stream" and self._do("xinfo_stream", key)["last-generated-id"] == LAST_ENTRY:
                spoiled[key] = "is at the last possible entry"
        if not spoiled:
            return ""
        return (
            f"somebody else writes to run {self.run} on the broker at {self.shown}: "
            + "; ".join(f"{key} {what}" for key, what in spoiled.items())
            + f"; stop that and DEL {' '.join(spoiled)}: the learner issues again what is lost with it"
        )

    def _message(self, name: str, kind: type[M]) -> M | None:
        """What a key holds, of that kind; None where there is nothing, and for what is none, which is told once."""
        raw = self._do("get", self.key(name))
        if raw is None:
            return None
        try:
            message = unpack(raw)
        except SchemaError as error:
            self._tell_foreign(name, str(error))
            return None
        if not isinstance(message, kind):
            self._tell_foreign(name, f"a {message.KIND}")
            return None
        return message

    def _tell_foreign(self, key: str, why: str) -> None:
        """Says once that a key holds what is none of ours, as long as it is the same."""
        if self._told.get(key) != why:
            self._told[key] = why
            log.warning("passed over: none of ours", key=self.key(key), why=why)

    def _servers(self) -> list[dict[str, Any]]:
        """INFO of every server that holds data."""
        return self._wait_for("info", lambda: infos(self._redis))

    def _do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """One command of the client; its first argument, usually a key, says in the log what is waited for."""
        what = f"{command} {args[0]}"
        return self._wait_for(what, lambda: getattr(self._redis, command)(*args, **kwargs))

    def _script(
        self, name: str, keys: Sequence[str], args: Sequence[Any], raises: tuple[type[BrokerUnavailable], ...] = ()
    ) -> Any:
        return self._wait_for(
            name, lambda: self._scripts[name](keys=[self.key(k) for k in keys], args=list(args)), raises
        )

    def _scripts_together(self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """A script once for each (keys, args), in one round trip; a failure repeats all, which changes nothing."""
        if len(calls) < 2 or is_cluster(self._redis):  # whose pipelines run no scripts
            return [self._script(name, *call) for call in calls]

        def call() -> list[Any]:
            with self._redis.pipeline(transaction=False) as pipe:
                for keys, args in calls:
                    self._scripts[name](keys=[self.key(k) for k in keys], args=list(args), client=pipe)
                replies: list[Any] = pipe.execute()
                return replies

        return self._wait_for(name, call)


def runs_at(url: str) -> list[str]:
    """Ids of the runs that a broker has. Raises BrokerUnavailable."""
    try:
        keys = client_of(url).scan_iter(match="{*}:fence", count=1000)
        return sorted(match[1].decode() for key in keys if (match := _RUN.fullmatch(key)))
    except (ValueError, redis.RedisError, RedisClusterException) as error:
        raise BrokerUnavailable(
            f"cannot ask the broker at {shown(url)} for its runs: {error}; is it alive? If it is, name the run"
        ) from error
