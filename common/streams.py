"""The only module that speaks Redis: streams of work, tickets' states, leases, fencing, the newest policy.

Keys of a run share the hash tag {run}, so that a cluster keeps them on one node and scripts may touch several:

    {run}:tickets  {run}:rollouts  {run}:scored     streams, one owning consumer group each
    {run}:open     hash id -> "stage attempt"        every ticket that is not closed
    {run}:dead     stream of given-up messages       {run}:fence  incarnation of the living learner
    {run}:policy   newest published policy           {run}:sigma  sigma_bar       {run}:procs  heartbeats

A hand-over between stages is one Lua script on the server (`common/lua`): at least once between stages,
exactly once in effect, whatever retries, robs or dies.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

import redis
import structlog
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from common.errors import BrokerUnavailable, BrokerUnfit, Fenced, SchemaError
from common.schema import DeadLetter, Message, Policy, Rollout, Scored, Stage, Ticket, pack, unpack

GROUPS: dict[Stage, str] = {"tickets": "actors", "rollouts": "scorers", "scored": "learner"}
NEXT: dict[Stage, Stage] = {"tickets": "rollouts", "rollouts": "scored"}
EXPECTED: dict[Stage, type] = {"tickets": Ticket, "rollouts": Rollout, "scored": Scored}
OLDEST_SERVER = (7, 0)  # consumer group lag and script flags
SAY_AFTER_S = 5.0  # a wait that lasts longer is told in the log

R = TypeVar("R")
log = structlog.get_logger("streams")


class BrokerFull(BrokerUnavailable):
    """maxmemory is reached: back-pressure, not a failure."""


@dataclass(frozen=True)
class Delivery:
    """A message that this consumer holds a lease on until it hands over, buries or closes it."""

    stage: Stage
    entry: str
    message: Ticket | Rollout | Scored
    """By stage."""
    deliveries: int
    """1 at first; higher when earlier holders died or gave it back."""

    @property
    def ticket(self) -> Ticket:
        return self.message if isinstance(self.message, Ticket) else self.message.ticket


class Broker:
    """One process's connection to a run. Waits out an absent or full server (and says so) until `stop` is set."""

    def __init__(self, url: str, run: str, role: str, *, stop: threading.Event | None = None) -> None:
        self.url = url
        self.run = run
        self.consumer = f"{role}-{socket.gethostname()[:64]}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.stop = stop or threading.Event()
        try:
            # Scripts are idempotent, so a retried command changes nothing; a retried read only leaves a lease behind.
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=30, socket_connect_timeout=5, retry=Retry(ExponentialBackoff(cap=0.5), 2)
            )
        except ValueError as error:
            raise BrokerUnavailable(f"broker.url = {url!r}: {error}; e.g. redis://host:6379/0") from error
        lua = resources.files("common") / "lua"
        self._scripts = {
            name: self._redis.register_script((lua / f"{name}.lua").read_text())
            for name in ("issue", "hand_over", "renew", "bury", "close", "announce", "trim", "leave", "take_over")
        }

    def key(self, name: str) -> str:
        return f"{{{self.run}}}:{name}"

    # -- the server ------------------------------------------------------------------------------------------

    def check(self) -> str:
        """Version of the server. Raises BrokerUnavailable or BrokerUnfit with the remedy; creates the groups."""
        try:
            info = self._redis.info()
        except redis.AuthenticationError as error:
            raise BrokerUnavailable(
                f"the broker at {self.url} refuses the login: {error}; set user and password in the URL"
            ) from error
        except redis.RedisError as error:
            raise BrokerUnavailable(
                f"no broker answers at {self.url}: {error}; start it, or set broker.url or REDIS_URL"
            ) from error
        version = str(info.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
            raise BrokerUnfit(
                f"the broker at {self.url} is version {version}; consumer group lag needs Redis >= 7.0 or Valkey"
            )
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise BrokerUnfit(
                f"the broker at {self.url} evicts keys when full (maxmemory-policy {policy}), which would lose "
                "tickets; run CONFIG SET maxmemory-policy noeviction"
            )
        if info.get("role") != "master":
            raise BrokerUnfit(f"the broker at {self.url} is a {info.get('role')}; connect to the primary")
        self.ensure_groups()
        return version

    def ensure_groups(self) -> None:
        """Streams with their owning groups, from the first entry on ($ would skip what came before)."""
        for stage, group in GROUPS.items():
            try:
                self._do("xgroup_create", self.key(stage), group, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def _wait_for(self, what: str, call: Callable[[], R], *, patient: bool = True) -> R:
        """Result of `call`; waits while the server is away or full, as long as nobody asked us to stop."""
        since = time.monotonic()
        said = False
        pause = 0.05
        while True:
            try:
                result = call()
            except redis.OutOfMemoryError as error:
                failure: BrokerUnavailable = BrokerFull(f"the broker at {self.url} is at maxmemory: {error}")
                remedy = "goes on when trained groups are checkpointed and trimmed, or when maxmemory is raised"
            except redis.ResponseError as error:
                if "OOM" in str(error):
                    failure = BrokerFull(f"the broker at {self.url} is at maxmemory: {error}")
                    remedy = "goes on when trained groups are checkpointed and trimmed, or when maxmemory is raised"
                elif "NOGROUP" in str(error):
                    self.ensure_groups()  # the broker lost its data; the learner will issue again what is missing
                    continue
                elif "FENCED" in str(error):
                    raise Fenced(f"a newer learner has taken over run {self.run}; this one stops") from error
                else:
                    raise
            except (redis.ConnectionError, redis.TimeoutError) as error:
                failure = BrokerUnavailable(f"no broker answers at {self.url}: {error}")
                remedy = "goes on when it answers again"
            else:
                if said:
                    log.info("wait over", waited_for=what, seconds=round(time.monotonic() - since, 1))
                return result
            if not patient or self.stop.is_set():
                raise failure
            if not said and time.monotonic() - since > SAY_AFTER_S:
                said = True
                log.warning("waiting for the broker", doing=what, why=str(failure), until=remedy)
            self.stop.wait(pause)
            pause = min(2 * pause, 1.0)

    def _do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """One command of the client; its first argument, usually a key, says in the log what is waited for."""
        what = f"{command} {args[0]}"
        return self._wait_for(what, lambda: getattr(self._redis, command)(*args, **kwargs))

    def _script(self, name: str, keys: Sequence[str], args: Sequence[Any], *, patient: bool = True) -> Any:
        return self._wait_for(
            name, lambda: self._scripts[name](keys=[self.key(k) for k in keys], args=list(args)), patient=patient
        )

    def _scripts_together(self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """A script once for each (keys, args), in one round trip; a failure repeats all, which changes nothing."""
        if len(calls) < 2:
            return [self._script(name, *call) for call in calls]

        def call() -> list[Any]:
            with self._redis.pipeline(transaction=False) as pipe:
                for keys, args in calls:
                    self._scripts[name](keys=[self.key(k) for k in keys], args=list(args), client=pipe)
                replies: list[Any] = pipe.execute()
                return replies

        return self._wait_for(name, call)

    # -- learner ---------------------------------------------------------------------------------------------

    def take_over(self, above: int = 0) -> int:
        """A fencing number for a new learner: every older one can no longer issue, close or announce.

        It is higher than `above`, the last one of a checkpoint: the broker may have lost what it knew.
        """
        return int(self._script("take_over", ["fence"], [above]))

    def check_fence(self, incarnation: int) -> None:
        """Raises Fenced when a newer learner has taken over; one that only waits would not notice."""
        if int(self._do("get", self.key("fence")) or 0) > incarnation:
            raise Fenced(f"a newer learner has taken over run {self.run}; this one stops")

    def issue(self, ticket: Ticket) -> bool:
        """Puts a ticket up once; False if it is open already. Raises BrokerFull instead of waiting."""
        return self.issue_together([ticket])[0]

    def issue_together(self, tickets: Sequence[Ticket]) -> list[bool]:
        """`issue` for several tickets of one incarnation in one step: all are put up, or it raises and none is."""
        if not tickets:
            return []
        args = [tickets[0].incarnation, *(part for t in tickets for part in (t.id, t.attempt, pack(t)))]
        return [bool(new) for new in self._script("issue", ["open", "tickets", "fence"], args, patient=False)]

    def close(self, incarnation: int, done: Sequence[tuple[int, int, str]]) -> None:
        """Acknowledges and forgets tickets [(id, attempt, entry or "")] whose effect is durable."""
        for start in range(0, len(done), 500):
            args = [incarnation, GROUPS["scored"], *(part for item in done[start : start + 500] for part in item)]
            self._script("close", ["open", "scored", "fence"], args)

    def announce(self, policy: Policy) -> None:
        """Makes a policy the newest one."""
        self._script("announce", ["policy", "fence"], [policy.incarnation, pack(policy)])

    def open_tickets(self) -> dict[int, tuple[str, int]]:
        """{id: (stage, attempt)} of every ticket that is not closed; stage may be "dead"."""
        raw = self._do("hgetall", self.key("open"))
        return {int(i): (state.split()[0].decode(), int(state.split()[1])) for i, state in raw.items()}

    def trim(self) -> None:
        """Frees what every owning group has acknowledged."""
        for stage, group in GROUPS.items():
            self._script("trim", [stage], [group])

    def restore_sigma(self, sigma_bar: float | None) -> None:
        """sigma_bar from a checkpoint, only when the broker has none."""
        if sigma_bar is not None:
            self._do("setnx", self.key("sigma"), repr(sigma_bar))

    def dead_letters(self, after: str = "0", count: int = 1000) -> list[tuple[str, DeadLetter]]:
        """Given-up messages after an entry id, oldest first; what is none of ours is passed over."""
        raw = self._do("xrange", self.key("dead"), f"({after}", "+", count)
        letters = []
        for entry, fields in raw:
            try:
                message = unpack(fields.get(b"m", b""))
            except SchemaError as error:
                log.warning("foreign entry among the dead letters", entry=entry.decode(), why=str(error))
                continue
            if isinstance(message, DeadLetter):
                letters.append((entry.decode(), message))
        return letters

    # -- workers ---------------------------------------------------------------------------------------------

    def read(self, stage: Stage, count: int, block_ms: int) -> list[Delivery]:
        """Up to `count` new messages, waiting at most `block_ms` (0: not at all)."""
        raw = self._do(
            "xreadgroup", GROUPS[stage], self.consumer, {self.key(stage): ">"}, count=count, block=block_ms or None
        )
        streams = raw.items() if isinstance(raw, dict) else raw or []
        return [d for _, entries in streams for d in self._deliveries(stage, _flat(entries), 1)]

    def claim(self, stage: Stage, min_idle_ms: int, max_deliveries: int) -> list[Delivery]:
        """Takes over every message whose lease ran out; one that failed too often goes to the dead letters."""
        key, group, cursor = self.key(stage), GROUPS[stage], "0-0"
        taken: list[Delivery] = []
        while True:
            reply = self._do("xautoclaim", key, group, self.consumer, min_idle_ms, start_id=cursor, count=100)
            cursor = reply[0].decode() if isinstance(reply[0], bytes) else reply[0]
            for entry, fields in reply[1]:
                pending = self._do("xpending_range", key, group, min=entry, max=entry, count=1)
                deliveries = int(pending[0]["times_delivered"]) if pending else 1
                for delivery in self._deliveries(stage, [(entry, fields)], deliveries):
                    if deliveries > max_deliveries:
                        self.bury(delivery, f"given up after {deliveries - 1} deliveries", "")
                    else:
                        taken.append(delivery)
            if cursor == "0-0":  # an empty reply with another cursor is not the end
                return taken

    def inherit(self, stage: Stage, min_idle_ms: int) -> list[Delivery]:
        """Takes over what other consumers left lying, and nothing of one's own, however long that lies."""
        key, group = self.key(stage), GROUPS[stage]
        taken: list[Delivery] = []
        for other in self._do("xinfo_consumers", key, group):
            if other["name"] == self.consumer.encode() or not other["pending"]:
                continue
            left = self._do("xpending_range", key, group, "-", "+", 1000, consumername=other["name"], idle=min_idle_ms)
            if left:
                entries = [entry["message_id"] for entry in left]
                claimed = self._do("xclaim", key, group, self.consumer, min_idle_ms, entries)
                taken += self._deliveries(stage, claimed, 2)
        return taken

    def _deliveries(self, stage: Stage, entries: Sequence[Any], deliveries: int) -> list[Delivery]:
        good = []
        for raw_entry, fields in entries:
            entry = raw_entry.decode()
            body = (fields or {}).get(b"m", b"")
            try:
                message: Message = unpack(body)
                if not isinstance(message, EXPECTED[stage]):
                    raise SchemaError(f"a {message.KIND} in the stream of {stage}")
                assert isinstance(message, Ticket | Rollout | Scored)
                delivery = Delivery(stage, entry, message, deliveries)
                if delivery.ticket.run != self.run:
                    raise SchemaError(f"it belongs to run {delivery.ticket.run!r:.140}, this is {self.run!r}")
            except SchemaError as error:
                id, attempt = _named(fields or {})
                self._bury(stage, entry, id, attempt, f"unreadable: {error}", traceback.format_exc(), body)
            else:
                good.append(delivery)
        return good

    def hand_over(self, delivery: Delivery, result: Rollout | Scored, momentum: float = 0.0) -> bool:
        """Publishes the result, acknowledges the input and advances the ticket, all or nothing.

        False: somebody else was first, or the ticket was issued again; nothing was published.
        A scored group with a sigma_u moves sigma_bar in the same step, so once per ticket.
        """
        return self.hand_over_together([(delivery, result)], momentum)[0]

    def hand_over_together(
        self, results: Sequence[tuple[Delivery, Rollout | Scored]], momentum: float = 0.0
    ) -> list[bool]:
        """`hand_over` for several groups in one round trip, in order; each is all or nothing for itself."""
        calls = []
        for delivery, result in results:
            target, ticket = NEXT[delivery.stage], delivery.ticket
            sigma_u = result.sigma_u if isinstance(result, Scored) else None
            args = [
                GROUPS[delivery.stage],
                delivery.entry,
                ticket.id,
                ticket.attempt,
                delivery.stage,
                target,
                pack(result),
                "" if sigma_u is None else repr(sigma_u),
                momentum,
            ]
            calls.append((["open", delivery.stage, target, "sigma"], args))
        return [bool(done) for done in self._scripts_together("hand_over", calls)]

    def renew(self, deliveries: Sequence[Delivery]) -> set[str]:
        """Renews leases; returns the entries that are still ours (a robbed one must be given up)."""
        mine: set[str] = set()
        for stage in {d.stage for d in deliveries}:
            entries = [d.entry for d in deliveries if d.stage == stage]
            mine |= {e.decode() for e in self._script("renew", [stage], [GROUPS[stage], self.consumer, *entries])}
        return mine

    def bury(self, delivery: Delivery, reason: str, trace: str) -> None:
        """Gives a message up: dead-letter stream, acknowledged, ticket marked dead."""
        ticket = delivery.ticket
        self._bury(delivery.stage, delivery.entry, ticket.id, ticket.attempt, reason, trace, pack(delivery.message))

    def _bury(
        self, stage: Stage, entry: str, id: int | None, attempt: int | None, reason: str, trace: str, body: bytes
    ) -> None:
        log.error("dead letter", stage=stage, ticket=id, attempt=attempt, reason=reason)
        letter = DeadLetter(stage, id, attempt, reason[:4000], trace[-8000:], self.consumer, body[: 16 * 2**20])
        args = [GROUPS[stage], entry, "" if id is None else id, attempt or 0, pack(letter)]
        self._script("bury", ["open", stage, "dead"], args)

    def sigma_bar(self) -> float | None:
        """The shared running mean of sigma_u; None before the first group."""
        raw = self._do("get", self.key("sigma"))
        return None if raw is None else float(raw)

    def policy(self) -> Policy | None:
        """The newest published policy; None before the first."""
        raw = self._do("get", self.key("policy"))
        if raw is None:
            return None
        message = unpack(raw)
        if not isinstance(message, Policy):
            raise SchemaError(f"{self.key('policy')} holds a {message.KIND}")
        return message

    def leave(self, stage: Stage) -> None:
        """Forgets this consumer if it holds nothing. Best effort: one that stays costs a name in a list."""
        try:
            self._script("leave", [stage], [GROUPS[stage], self.consumer], patient=False)
        except (BrokerUnavailable, redis.RedisError) as error:
            log.info("left without being forgotten", consumer=self.consumer, why=str(error))

    # -- watching --------------------------------------------------------------------------------------------

    def heartbeat(self, state: dict[str, Any]) -> None:
        """Says that this process lives, and what it does."""
        text = json.dumps({"time": time.time(), **state})
        self._do("hset", self.key("procs"), self.consumer, text)

    def processes(self) -> dict[str, dict[str, Any]]:
        """Heartbeats by consumer."""
        raw = self._do("hgetall", self.key("procs"))
        return {name.decode(): json.loads(text) for name, text in raw.items()}

    def backlog(self) -> dict[Stage, dict[str, int | None]]:
        """Per stage: length of the stream, lag (not delivered; None if the server cannot tell), pending."""
        result: dict[Stage, dict[str, int | None]] = {}
        for stage, group in GROUPS.items():
            infos = self._do("xinfo_groups", self.key(stage))
            length = self._do("xlen", self.key(stage))
            for info in infos:
                if info["name"] == group.encode():
                    result[stage] = {"length": length, "lag": info.get("lag"), "pending": info["pending"]}
        return result

    def memory(self) -> tuple[int, int]:
        """Bytes used and maxmemory (0: no bound)."""
        info = self._do("info", "memory")
        return int(info["used_memory"]), int(info.get("maxmemory", 0))

    def finish(self) -> None:
        """Marks the run as over: workers leave."""
        self._do("set", self.key("over"), 1)

    def over(self) -> bool:
        return bool(self._do("exists", self.key("over")))

    def reopen(self) -> None:
        """A resumed run is not over."""
        self._do("delete", self.key("over"))


def _named(fields: Mapping[bytes, bytes]) -> tuple[int | None, int | None]:
    """(id, attempt) that stand beside a message: its ticket can be replaced although nobody can read it."""
    try:
        return int(fields[b"id"]), int(fields[b"attempt"])
    except (KeyError, ValueError):
        return None, None


def _flat(entries: Any) -> list[Any]:
    """redis-py gives [(id, fields)] by RESP2 and [[(id, fields)]] by RESP3."""
    return (
        entries[0]
        if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple)
        else entries
    )
