"""A server behind TLS whose users are those that `hero acl` makes."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme

from deploy import cli
from tests.chaos.proxy import Proxy
from tests.servers import Servers, free_ports


@dataclass(frozen=True)
class Guarded:
    """A server with our users alone, behind TLS."""

    addresses: dict[str, str]
    """Role to its address, with TLS."""
    admin: Any
    plain: str
    """The address without TLS or user."""
    authority: Path


@contextlib.contextmanager
def guard(folder: Path, runs: str) -> Iterator[Guarded]:
    """`runs`: glob of the ids of the runs that its users reach."""
    authority, listening = trustme.CA(), socket.create_server(("127.0.0.1", 0))
    authority.cert_pem.write_to_path(folder / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    front = Proxy(listening, folder / "broker.sock", tls)
    with pytest.MonkeyPatch.context() as patch, (folder / "users.acl").open("w") as users:
        told = folder / "addresses"
        with told.open("w") as addresses, contextlib.redirect_stdout(users), contextlib.redirect_stderr(addresses):
            patch.delenv("REDIS_URL", raising=False)
            assert cli.main(["acl", "--url", front.url, "--run", runs]) == 0
    found = dict(line.split() for line in told.read_text().splitlines())
    servers, [port] = Servers(folder), free_ports(1)
    arguments = ["--aclfile", str(folder / "users.acl"), "--unixsocket", str(folder / "broker.sock")]
    user, password = re.findall(r"//(.*):(.*)@", found["admin"])[0]
    admin = servers.start(port, *arguments, "--save", "", username=user, password=password)
    query = f"?ssl_ca_certs={quote(str(folder / 'ca.pem'))}"
    try:
        yield Guarded(
            {r: url + query for r, url in found.items()}, admin, f"redis://127.0.0.1:{port}", folder / "ca.pem"
        )
    finally:
        servers.close()
        front.close()
