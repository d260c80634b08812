"""From the broker's address to a client: one server, the primary that Sentinels name, or a cluster.

    redis://user:password@host:6379/0                      one server; rediss:// with TLS
    unix:///run/redis.sock                                 one server on this machine
    redis+sentinel://user:password@a:26379,b:26379/mymaster/0
    redis+cluster://user:password@a:6379,b:6379            any of its nodes; rediss+... with TLS, for both

User and password are those of the data servers; `?sentinel_username=...&sentinel_password=...` those of the Sentinels.
With TLS certificates are verified; `?ssl_ca_certs=FILE` names an authority of your own, `ssl_certfile=FILE` and
`ssl_keyfile=FILE` the client's certificate, for a server that asks for one.
"""

from __future__ import annotations

import re
import socket
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.cluster import ClusterNode
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

READ_TIMEOUT_S, CONNECT_TIMEOUT_S = 10, 5
CLUSTER_RETRIES = 2  # of which the last ones ask where the keys are now
SENTINEL_PORT, SERVER_PORT = 26379, 6379


def client_of(url: str) -> Any:
    """A client for any of the addresses above; a cluster's connects at once.

    Its commands are tried once: `Connection` repeats them, and looks in between whether it is to stop. redis-py retries
    the command and within it the connection: two retries wait minutes for a server that is silent, behind a partition.
    Raises ValueError for an address that is none of these, redis' own errors when a cluster does not answer.
    """
    options: dict[str, Any] = {
        "socket_timeout": READ_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    scheme, netloc, rest = parted(url)
    plain, _, kind = scheme.partition("+")
    if not kind and plain in ("redis", "rediss", "unix"):
        client = redis.Redis.from_url(url, **options)
        pool = client.connection_pool
        try:
            pool.connection_class(**pool.connection_kwargs)  # which connects nowhere yet
        except TypeError as error:
            raise ValueError(f"an option in it is none of {plain}://: {error}") from error
        return client
    if plain not in ("redis", "rediss") or kind not in ("sentinel", "cluster"):
        raise ValueError("it begins with none of redis://, rediss://, unix://, redis+sentinel://, redis+cluster://")
    user, _, hosts = netloc.rpartition("@")
    parts = urlsplit(f"{scheme}://{user}@{rest}")
    options |= {"username": _text(parts.username or None), "password": _text(parts.password)}
    asked = parse_url(f"{plain}://?{parts.query}")  # type: ignore[no-untyped-call]
    tls = {name: value for name, value in asked.items() if name.startswith("ssl_")} | {"ssl": plain == "rediss"}
    if kind == "cluster":
        node: Any = ClusterNode
        nodes = [node(host, port) for host, port in _hosts(hosts, SERVER_PORT)]
        options["retry"] = Retry(ExponentialBackoff(cap=0.5), CLUSTER_RETRIES)
        return redis.RedisCluster(startup_nodes=nodes, **options, **tls)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError(
            "a Sentinel's address ends with the name of its primary, e.g. redis+sentinel://a:26379/mymaster"
        )
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        _hosts(hosts, SENTINEL_PORT),
        sentinel_kwargs={
            "socket_timeout": CONNECT_TIMEOUT_S,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "username": asked.get("sentinel_username"),
            "password": asked.get("sentinel_password"),
            **tls,
        },
        **options,
        **tls,
    )
    return sentinel.master_for(service, db=int(database or 0))


def parted(url: str) -> tuple[str, str, str]:
    """Scheme, user with hosts, and the rest: urlsplit refuses several hosts with an IPv6 address among them."""
    scheme, _, after = url.partition("://")
    end = next((place for place, letter in enumerate(after) if letter in "/?#"), len(after))
    return scheme.lower(), after[:end], after[end:]


def hosts_of(url: str) -> list[str]:
    """The hosts in an address; none where it is a socket on this machine. Raises ValueError for what is no host."""
    scheme, netloc, _ = parted(url)
    return [] if scheme == "unix" else [host for host, _ in _hosts(netloc.rpartition("@")[2], SERVER_PORT)]


def user_in(url: str) -> str | None:
    """Whom an address names; None where it leaves that to the server."""
    return unquote(parted(url)[1].rpartition("@")[0].partition(":")[0]) or None


def without_login(url: str) -> str:
    """The address as somebody would write it who has no user and no password."""
    scheme, netloc, rest = parted(url)
    path, mark, query = rest.partition("?")
    kept = [part for part in query.split("&") if part.partition("=")[0] not in ("username", "password")]
    return f"{scheme}://{netloc.rpartition('@')[2]}{path}{mark}{'&'.join(kept)}"


def local_host(url: str) -> str | None:
    """This host's address on the way to the broker; None where that is on this host or cannot be told."""
    scheme, netloc, _ = parted(url)
    if scheme.startswith("unix"):
        return None
    host, port = _hosts(netloc.rpartition("@")[2], SERVER_PORT)[0]
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # which sends nothing
            found: str = probe.getsockname()[0]
            return found
    except OSError:
        return None


def is_cluster(client: Any) -> bool:
    return isinstance(client, redis.RedisCluster)


def server_of(client: Any, key: str) -> Any:
    """A client of the one server that holds a key, whose commands go nowhere else."""
    if is_cluster(client):
        return client.get_redis_connection(client.get_node_from_key(key))
    return client


def infos(client: Any) -> list[dict[str, Any]]:
    """INFO of the server, or of every primary of a cluster."""
    if is_cluster(client):
        return [client.info(target_nodes=node) for node in client.get_primaries()]
    return [client.info()]


def shown(url: str) -> str:
    """The address without its passwords, for logs and messages."""
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"(://[^/@:]*:)[^/@]*@", r"\1***@", url))


def _hosts(hosts: str, port: int) -> list[tuple[str, int]]:
    found = []
    for place in hosts.split(","):
        one = urlsplit(f"//{place}")
        if not one.hostname:
            raise ValueError(f"{place!r} is no host")
        found.append((one.hostname, one.port or port))
    return found


def _text(quoted: str | None) -> str | None:
    return None if quoted is None else unquote(quoted)
