"""What a server must be to hold a run, judged by its INFO. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

OLDEST_SERVER = (7, 0)  # consumer group lag and script flags


class Fault(NamedTuple):
    """`Fault("role", "is a slave", "connect to the primary")`."""

    of: str
    """What of the server: version, eviction, role."""
    what: str
    """Goes on after "the broker at ..."."""
    remedy: str


def version_of(info: Mapping[str, Any]) -> str:
    """The version of Redis whose commands it has; Valkey's own is another."""
    return str(info.get("redis_version", "0"))


def numbers(version: str) -> tuple[int, ...]:
    """`numbers("7.2.4")` is (7, 2); (0,) for what is none."""
    parts = version.split(".")[:2]
    return tuple(map(int, parts)) if all(map(str.isdigit, parts)) else (0,)


def faults(info: Mapping[str, Any]) -> Iterator[Fault]:
    """Why a run would fail or lose something with this server; nothing when it is fit."""
    version = version_of(info)
    if numbers(version) < OLDEST_SERVER:
        yield Fault("version", f"is version {version}", "consumer group lag needs Redis >= 7.0 or Valkey")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Fault(
            "eviction",
            f"evicts keys when full (maxmemory-policy {policy}), which would lose tickets",
            "run CONFIG SET maxmemory-policy noeviction",
        )
    if info.get("role") != "master":
        yield Fault("role", f"is a {info.get('role')}", "connect to the primary")
