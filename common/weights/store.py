"""Weights in a broker, for actors that see no folder of the learner's: parts of versions, as chunks.

    {run}:weights:1-57:whole     hash number -> chunk     {run}:carried     newest version that is here, its parts
    {run}:weights:1-57:since-56  hash number -> chunk     {run}:carried:at  its incarnation and step
    {run}:weights:parts          set of such keys         {run}:reading     who reads which whole version
    {run}:weights:wanted         there while it is needed {run}:model       hash file -> content: defines the model
    {run}:relays                 hosts that give away     {run}:relays:secret
    {run}:ring                   who gets them together   {run}:ring:wishes who wants to

It may be another broker than that of the streams: weights need no persistence, and streams come first in its memory.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Literal

from common.connection import BrokerFull, Connection
from common.schema import MAX_MEMBERS, Carried, Part, Ring, pack
from common.untrusted import count, version
from common.weights.relay import SECRET_BYTES

HIGH_WATER = 0.8
"""Share of a server's memory that weights leave to nobody: above it are streams alone."""
WANTED_MS = 60_000
"""An actor that says nothing for so long wants no more weights from here."""
READING_MS = 15_000
"""One that reads a version says so again and again."""
MOST_READERS = 4
"""Hosts that read whole versions at the same time: however many come at once, streams have a part of the line."""
RELAY_MS = WISH_MS = 15_000
MOST_RELAYS = 1000
KEPT_MS = 24 * 3600 * 1000
"""What no learner announces again for so long is gone."""

_OTHERS = (
    "carried",
    "carried:at",
    "weights:wanted",
    "weights:parts",
    "reading",
    "model",
    "relays",
    "relays:secret",
    "ring",
    "ring:at",
    "ring:wishes",
)


class WeightStore(Connection):
    """One process's access to them. Never waits for room: BrokerFull is raised, since weights give way to streams."""

    def _prepare(self) -> None:
        """Nothing has to be there."""

    def _tell_full(self, what: str, seconds: float, until: str) -> None:
        """Never called: see above."""

    # The learner's side

    def define(self, definition: Mapping[str, bytes]) -> None:
        """Puts there what `common.weights.definition` says. Raises BrokerFull."""
        key, content = self.key("model"), dict(definition)
        self._wait_for(f"hset {key}", lambda: self._redis.hset(key, mapping=content), (BrokerFull,))

    def put(self, incarnation: int, part: Part, number: int, chunk: bytes) -> None:
        """One chunk. Raises BrokerFull when there is no room for it."""
        key = self._part(incarnation, part)
        if number == 0:  # first of all it is on the list of what has to go
            parts = self.key("weights:parts")
            self._wait_for(f"sadd {parts}", lambda: self._redis.sadd(parts, key), (BrokerFull,))
        self._wait_for(f"hset {key}", lambda: self._redis.hset(key, str(number), chunk), (BrokerFull,))
        if number == 0:
            self._do("pexpire", key, KEPT_MS)

    def announce(self, carried: Carried) -> None:
        """Makes it the newest that is here; Fenced when a newer learner's is. All of its chunks must be."""
        policy = carried.policy
        args = [policy.incarnation, policy.step, pack(carried)]
        self._script("announce", ["carried", "carried:fence", "carried:at"], args, (BrokerFull,))
        for part in all_parts(carried):
            self._do("pexpire", self._part(policy.incarnation, part), KEPT_MS)

    def drop(self, incarnation: int, parts: Sequence[Part]) -> None:
        """Frees what these parts take."""
        self._drop([self._part(incarnation, part) for part in parts])

    def drop_all_but(self, carried: Carried) -> None:
        """Frees what else was ever put here: by learners that died, also in the middle of a part."""
        keep = {self._part(carried.policy.incarnation, part).encode() for part in all_parts(carried)}
        self._drop([key.decode() for key in self._do("smembers", self.key("weights:parts")) - keep])

    def clear(self) -> None:
        """Frees everything: the run is over."""
        self._drop([key.decode() for key in self._do("smembers", self.key("weights:parts"))])
        self._do("unlink", *map(self.key, _OTHERS))

    def wanted(self) -> str:
        """What some actor needs from here: "" nothing, "newest" weights, or "anew": what is here is damaged."""
        key = self.key("weights:wanted")
        wanted = (self._do("get", key) or b"").decode(errors="replace")
        if wanted == "anew":
            self._do("set", key, "newest", px=WANTED_MS)
        return wanted

    def read_now(self) -> set[int]:
        """Steps of the whole versions that somebody is reading."""
        marks = self._script("marked", ["reading"], [READING_MS])
        return {count(mark.partition(b" ")[0]) for mark in marks}

    def free_bytes(self) -> float:
        """Room for weights in the fullest of its servers; infinite without a limit."""
        servers = [info for info in self._servers() if info.get("maxmemory")]
        return min((HIGH_WATER * i["maxmemory"] - i["used_memory"] for i in servers), default=math.inf)

    def announce_ring(self, ring: Ring, incarnation: int) -> None:
        """Asks its members to come. Fenced when a newer learner has asked."""
        args = [incarnation, ring.generation, pack(ring)]
        self._script("announce", ["ring", "ring:fence", "ring:at"], args)

    def wishes(self) -> list[tuple[str, str]]:
        """(device, consumer) of every actor that wants weights by a ring."""
        marks = self._script("marked", ["ring:wishes"], [WISH_MS])
        return sorted((device, name) for device, _, name in (mark.decode().partition(" ") for mark in marks))

    # The actors'

    def want(self, what: Literal["newest", "anew"] = "newest") -> None:
        """Asks the learner to put weights here, to be said again within WANTED_MS; `anew` when what is here cannot be
        used."""
        self._do("set", self.key("weights:wanted"), what, px=WANTED_MS, nx=what == "newest")

    def anew_is_wanted(self) -> bool:
        """Whether some actor has asked for weights anew and the learner has not heard of it."""
        found: bytes | None = self._do("get", self.key("weights:wanted"))
        return found == b"anew"

    def definition(self) -> dict[str, bytes]:
        """What defines the model; empty before the learner has put it there."""
        found = self._do("hgetall", self.key("model"))
        return {name.decode(errors="replace"): content for name, content in found.items()}

    def at(self) -> tuple[int, int] | None:
        """Incarnation and step of the newest version here."""
        return version(self._do("get", self.key("carried:at")))

    def carried(self) -> Carried | None:
        """The newest version here; None without one, and for what is none."""
        return self._message("carried", Carried)

    def ring(self) -> Ring | None:
        """The ring that there is now; None without one, and for what is none."""
        return self._message("ring", Ring)

    def wish(self, device: str) -> None:
        """Says that this actor wants weights by a ring, for WISH_MS; its tensors are on "cpu" or "cuda"."""
        self._script("mark", ["ring:wishes"], [f"{device} {self.consumer}", WISH_MS, MAX_MEMBERS])

    def chunk(self, incarnation: int, part: Part, number: int) -> bytes | None:
        """One chunk; None when it is gone."""
        found: bytes | None = self._do("hget", self._part(incarnation, part), str(number))
        return found

    def relays(self) -> list[str]:
        """Addresses of hosts that give away what they have, in no order."""
        found = [one.decode(errors="replace") for one in self._script("marked", ["relays"], [RELAY_MS])]
        random.shuffle(found)
        return found

    def relay_at(self, address: str) -> None:
        """Says that this host is one, for RELAY_MS."""
        self._script("mark", ["relays"], [address, RELAY_MS, MOST_RELAYS])

    def secret(self) -> bytes:
        """What hosts of this run know each other by; whoever asks first makes it."""
        self._script("set_once", ["relays:secret"], [secrets.token_bytes(SECRET_BYTES)])
        found: bytes = self._do("get", self.key("relays:secret")) or b""
        return found.ljust(SECRET_BYTES, b"\0")[:SECRET_BYTES]

    def reads(self, step: int) -> bool:
        """Says that this actor reads the whole version of that step, which stays for READING_MS then; False while
        MOST_READERS others read one: it has to wait."""
        return bool(self._script("mark", ["reading"], [f"{step} {self.consumer}", READING_MS, MOST_READERS]))

    def has_read(self, step: int) -> None:
        """Says that it has, and no longer does."""
        self._do("zrem", self.key("reading"), f"{step} {self.consumer}")

    def _drop(self, keys: Sequence[str]) -> None:
        if keys:
            self._do("unlink", *keys)
            self._do("srem", self.key("weights:parts"), *keys)

    def _part(self, incarnation: int, part: Part) -> str:
        if part.frozen:
            return self.key(f"weights:{incarnation}:frozen")
        kind = "whole" if part.base is None else f"since-{part.base}"
        return self.key(f"weights:{incarnation}-{part.step}:{kind}")


def all_parts(carried: Carried) -> list[Part]:
    """With the frozen weights."""
    return carried.parts + ([carried.frozen] if carried.frozen else [])
