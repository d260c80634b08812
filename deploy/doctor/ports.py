"""Ports that processes of this machine listen on, whether they are free; and whether a server is in the way."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from common.address import local_host
from common.errors import BrokerUnavailable
from common.server import socket_in
from deploy.doctor.case import Case
from deploy.doctor.finding import Finding, error, ok, skipped, told

LAST_PORT = 65535


def ports(case: Case) -> Iterator[Finding]:
    yield from _metrics(case)
    if case.everything and case.url is None:
        yield _own_server(case)
    s = case.settings
    if "actor" in case.roles and (s.weights.relay or s.actor.weights_from == "ring"):
        at = local_host(case.url) if case.url else None
        what = "a relay" if s.weights.relay else "the ring"
        yield ok(
            "weights.address", f"{what} listens on a free port of {at or 'this host alone'}: firewalls have to let it"
        )


def _metrics(case: Case) -> Iterator[Finding]:
    options = case.settings.metrics
    if options.port is None:
        yield skipped("metrics.port", "is not set: no process answers HTTP")
        return
    if options.port == 0:
        yield ok("metrics.port", "0: each process takes a free one")
        return
    count = _processes(case)
    wanted = range(options.port, options.port + count)
    if wanted[-1] > LAST_PORT:
        found = f"{count} processes take {options.port} to {wanted[-1]}, the last port is {LAST_PORT}"
        yield error("metrics.port", found, f"set metrics.port to {LAST_PORT - count + 1} or less")
        return
    taken = {port: why for port in wanted if (why := in_the_way(options.host, port))}
    if taken:
        found = "; ".join(f"{port} of {options.host}: {why}" for port, why in taken.items())
        yield error("metrics.port", found, "set metrics.port elsewhere, or end what listens there (ss -ltnp)")
    else:
        last = f" to {wanted[-1]}" if count > 1 else ""
        yield ok("metrics.port", f"{options.port}{last} of {options.host} can be listened on")


def in_the_way(host: str, port: int) -> str:
    """Why a process could not listen there; "" if it could."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the process does
            probe.bind(address)
            probe.listen(1)
    except OSError as problem:
        return "is in use" if problem.errno == errno.EADDRINUSE else str(problem.strerror or problem)
    return ""


def _processes(case: Case) -> int:
    """Those of `hero up` have a port each, counted up from the learner's."""
    s = case.settings
    return 1 + s.actor.count + s.scorer.at_most if case.everything else 1


def _own_server(case: Case) -> Finding:
    folder = case.settings.run.folder / "broker"
    try:
        at = socket_in(folder)
    except BrokerUnavailable as problem:
        return told("broker.socket", problem)
    return ok("broker.socket", f"nobody answers on {at} yet" if at else "its path is too long: one in /tmp is taken")
