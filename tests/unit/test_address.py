"""Which client an address gives, and what a wrong one says."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from redis.sentinel import SentinelConnectionPool

from common import address
from common.address import client_of, hosts_of, shown, user_in, without_login


def test_one_server() -> None:
    client = client_of("rediss://me:secret@host:7000/3")
    options = client.connection_pool.connection_kwargs
    assert (options["host"], options["port"], options["db"], options["password"]) == ("host", 7000, 3, "secret")
    assert client.connection_pool.connection_class is redis.SSLConnection


def test_sentinels() -> None:
    client = client_of("redis+sentinel://me:p%40ss@a,b:1234,[::1]:5/primary/2?sentinel_username=s&sentinel_password=t")
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool) and pool.service_name == "primary" and pool.is_master
    options = pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == ("me", "p@ss", 2)
    asked = [s.connection_pool.connection_kwargs for s in pool.sentinel_manager.sentinels]
    assert [(o["host"], o["port"]) for o in asked] == [("a", 26379), ("b", 1234), ("::1", 5)]
    assert {(o["username"], o["password"]) for o in asked} == {("s", "t")}


def test_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(address.redis, "RedisCluster", lambda **options: made.update(options))
    client_of("rediss+cluster://me:secret@a:1,b/")
    assert [(n.host, n.port) for n in made["startup_nodes"]] == [("a", 1), ("b", 6379)]
    assert (made["username"], made["password"], made["ssl"]) == ("me", "secret", True)


def test_certificates_of_all_kinds_of_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    query, given = "?ssl_ca_certs=%2Fca&ssl_check_hostname=no", {"ssl_ca_certs": "/ca", "ssl_check_hostname": False}
    made: dict[str, Any] = {}
    monkeypatch.setattr(address.redis, "RedisCluster", lambda **options: made.update(options))
    client_of(f"rediss+cluster://a{query}")
    watched = client_of(f"rediss+sentinel://a/p{query}").connection_pool
    [watcher] = watched.sentinel_manager.sentinels
    one = client_of(f"rediss://a{query}").connection_pool.connection_kwargs
    for options in (made, watched.connection_kwargs, watcher.connection_pool.connection_kwargs, one):
        assert options | given == options
    with pytest.raises(ValueError, match="ssl_min_version"):
        client_of("rediss+cluster://a?ssl_min_version=x")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("host:6379", "none of redis://"),
        ("redis+magic://a", "none of redis://"),
        ("http+cluster://a", "none of redis://"),
        ("redis+sentinel://a:26379", "name of its primary"),
        ("redis+sentinel:///primary", "is no host"),
        ("redis+cluster://a,,b", "is no host"),
        ("redis+cluster://a:port", "port"),
        ("redis://a?ssl_ca_certs=/ca", "none of redis://: .*'ssl_ca_certs'"),
        ("unix:///a?colour=red", "none of unix://: .*'colour'"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        client_of(url)


def test_passwords_are_not_shown() -> None:
    url = "redis+sentinel://me:secret@a,b/p?sentinel_username=s&sentinel_password=hidden&x=1"
    assert shown(url) == "redis+sentinel://me:***@a,b/p?sentinel_username=s&sentinel_password=***&x=1"
    assert shown("redis://:secret@host/0") == "redis://:***@host/0"
    assert shown("unix:///tmp/a.sock") == "unix:///tmp/a.sock"


def test_the_parts_of_an_address() -> None:
    url = "rediss+sentinel://me:secret@a:1,[::1]:2/p?sentinel_password=hidden&x=1"
    assert hosts_of(url) == ["a", "::1"] and hosts_of("unix:///tmp/a.sock") == []
    assert user_in(url) == "me" and user_in("redis://:secret@a") is None and user_in("redis://a") is None
    assert without_login(url) == "rediss+sentinel://a:1,[::1]:2/p?sentinel_password=hidden&x=1"
    assert without_login("redis://a:1/0?username=me&password=x&y=1") == "redis://a:1/0?y=1"
    assert without_login("redis://me:secret@a") == "redis://a"
