"""The broker: who answers where, how fast, whether it may throw data away, and what it keeps when it dies."""

from __future__ import annotations

import ipaddress
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from common.address import hosts_of, parted
from common.errors import BrokerUnavailable
from common.examiner import Examiner
from common.fitness import faults, version_of
from common.server import find_server, needed_url
from deploy.doctor.case import Case
from deploy.doctor.finding import Finding, error, ok, skipped, warning

PINGS = 20
SLOW_S = 0.05
"""Every group takes a few round trips of each stage."""
CLOCKS_S = 1.0
OTHERS = {"redis_version", "valkey_version", "gcc_version"}
"""Of INFO's versions those that Redis and Valkey have; a server of another make has one more."""
TLS = ("rediss", "rediss+sentinel", "rediss+cluster")


def broker(case: Case) -> Iterator[Finding]:
    """Everything that can be asked about it; without one, whether `hero up` could start one."""
    if case.url is None and case.everything:
        binary, origin = find_server()
        yield ok("broker", f"none is named: `hero up` starts {binary} ({origin}) with broker.memory_mb of memory")
        return
    yield from examined(case.examiner(needed_url(case.settings.broker.url)), "broker")


def weights_broker(case: Case) -> Iterator[Finding]:
    """The one for weights, where it is another."""
    url = case.settings.weights.url
    if url is None or url == case.url:
        yield skipped("weights.url", "weights have no broker of their own")
    else:
        yield from examined(case.examiner(url), "weights.url", persistent=False)


def examined(server: Examiner, name: str, *, persistent: bool = True) -> Iterator[Finding]:
    """`persistent`: whether anybody minds what it forgets when it dies."""
    try:
        infos = server.servers()
    except BrokerUnavailable:
        server.fit()  # which says the same with what to do
        raise
    for info in infos:
        yield from kind(info, name, server.shown)
        for fault in faults(info):
            yield error(f"{name}.{fault.of}", f"it {fault.what}", fault.remedy)
    trips = server.round_trips_s(PINGS)
    yield pace(statistics.median(trips), max(trips), name)
    options = server.options("bind", "protected-mode", "appendfsync", "save", "stop-writes-on-bgsave-error")
    yield from ways_in(server, options, name)
    for info in infos:
        if "eviction" not in [fault.of for fault in faults(info)]:
            yield ok(f"{name}.eviction", "maxmemory-policy noeviction: what is full refuses, and loses nothing")
        if persistent:
            yield from persistence(info, options, name)
        yield replicas(info, server.url, name)
    yield clock(*server.clock_ahead_s(), name)


def kind(info: Mapping[str, Any], name: str, at: str) -> Iterator[Finding]:
    """Redis or Valkey, and its version."""
    odd = sorted(key for key in info if key.endswith("_version") and key not in OTHERS)
    if odd:
        found = f"{at} is neither Redis nor Valkey: it says {odd[0]} {info[odd[0]]}"
        yield warning(name, found, "nothing was tried with it: take Redis >= 7.0 or Valkey")
        return
    valkey = info.get("valkey_version")
    what = f"Valkey {valkey} (commands of Redis {version_of(info)})" if valkey else f"Redis {version_of(info)}"
    yield ok(name, f"{what} at {at}")


def pace(median_s: float, worst_s: float, name: str) -> Finding:
    found = f"a round trip takes {1000 * median_s:.2f} ms (median of {PINGS}, worst {1000 * worst_s:.1f})"
    if median_s < SLOW_S:
        return ok(f"{name}.latency", found)
    remedy = "put it nearer: every group takes several round trips in each stage"
    return warning(f"{name}.latency", found, remedy)


def ways_in(server: Examiner, options: Mapping[str, str], name: str) -> Iterator[Finding]:
    """Encryption and passwords, where others than this machine can come."""
    scheme = parted(server.url)[0]
    far = [host for host in hosts_of(server.url) if not _is_loopback(host)]
    if scheme in TLS:
        yield ok(f"{name}.tls", "with TLS, its certificate was verified")
    elif far:
        found = f"without TLS to {far[0]}: who is on the way reads prompts, and the password"
        yield warning(f"{name}.tls", found, "give the server a certificate and write rediss:// for redis://")
    else:
        yield ok(f"{name}.tls", "without TLS, on this machine alone")
    listens = options.get("bind", "")
    wide = any(not _is_loopback(host.lstrip("-")) for host in listens.split()) and options.get("protected-mode") == "no"
    if scheme == "unix" or not (far or wide):
        yield ok(f"{name}.password", "nobody comes from another machine, as far as one can tell from here")
        return
    anybody = server.lets_anybody_in()
    if anybody:
        found = f"whoever reaches {far[0] if far else f'its addresses ({listens})'} may do everything: no password"
        remedy = "make users by `hero acl`, or set requirepass: who may write there can feed the learner"
        yield warning(f"{name}.password", found, remedy)
    else:
        yield ok(f"{name}.password", "it asks for one" if anybody is False else "whether it asks for one is unknown")


def persistence(info: Mapping[str, Any], options: Mapping[str, str], name: str) -> Iterator[Finding]:
    """What survives when the server dies, and whether it can write at all."""
    check = f"{name}.persistence"
    if info.get("loading"):
        yield warning(check, "it is loading its file and answers nobody yet", "wait until it is done")
    if info.get("aof_last_write_status", "ok") != "ok":
        yield error(check, "its last write to the append-only file failed: it refuses writes", "give its disk room")
    if info.get("rdb_last_bgsave_status", "ok") != "ok" and options.get("stop-writes-on-bgsave-error") != "no":
        remedy = "give its disk room, or its folder rights; see its log; CONFIG SET save '' does without snapshots"
        yield error(check, "its last snapshot failed: it refuses writes (MISCONF) while snapshots are on", remedy)
    if info.get("aof_enabled"):
        when = options.get("appendfsync", "?")
        lost = {"always": "nothing", "everysec": "a second at most"}.get(when, "what the system had not written")
        yield ok(check, f"append-only file, appendfsync {when}: a power cut takes {lost}")
    elif options.get("save") or (not options and info.get("rdb_saves")):
        found = "snapshots alone: what came since the last one is sampled and scored again when the server dies"
        yield ok(check, f"{found} (save {options.get('save', '?')})")
    else:
        found = "none: when the server dies, all that is in flight is sampled and scored again"
        yield warning(check, found, "CONFIG SET appendonly yes, then CONFIG REWRITE")


def replicas(info: Mapping[str, Any], url: str, name: str) -> Finding:
    count, check = int(info.get("connected_slaves", 0)), f"{name}.replicas"
    if count or "sentinel" not in parted(url)[0]:
        alone = "none: while the server is away, all wait" if "cluster" not in parted(url)[0] else "none of this node"
        return ok(check, f"{count} connected" if count else alone)
    return warning(check, "none is connected: Sentinels have nobody to fail over to", "start one, or see its log")


def clock(ahead_s: float, uncertain_s: float, name: str) -> Finding:
    """Leases are by the server's clock alone; times in logs and metrics are by each host's own."""
    found = f"{abs(ahead_s):.3f} s {'ahead of' if ahead_s > 0 else 'behind'} this host's, +- {uncertain_s:.3f} s"
    if abs(ahead_s) - uncertain_s < CLOCKS_S:
        return ok(f"{name}.clock", found)
    remedy = "set both by NTP (chrony): leases hold all the same, but logs and metrics of two hosts cannot be compared"
    return warning(f"{name}.clock", found, remedy)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
