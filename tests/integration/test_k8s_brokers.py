"""The servers of the Kubernetes manifests, started here as their pods start them: the same arguments and scripts."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from common.address import client_of
from common.errors import BrokerUnavailable
from common.lifecycle import die_with_parent
from common.server import find_server
from common.streams import Broker
from deploy import cli
from tests.manifests import K8S, Pod, objects, pods
from tests.servers import NAME
from tests.until import until

SENTINEL = "all that goes with Sentinel"
CLI = f"""#!{sys.executable}
import sys, redis
host, port, *command = [word for word in sys.argv[1:] if word not in ("-h", "-p")]
for line in redis.Redis(host, int(port), socket_timeout=30).execute_command(*command) or []:
    print(line.decode())
"""
"""What `valkey-cli -h HOST -p PORT COMMAND...` is in the pods, as far as the scripts use it."""


@dataclass
class Here:
    """Pods as processes of this machine, each at an address of its own on the loopback."""

    folder: Path
    users: Path
    login: dict[str, str]
    """Role to user:password."""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, pod: Pod, address: str, **environment: str) -> None:
        """Starts the pod's first container; volumes are folders here, and TLS is left out."""
        container = pod.spec["containers"][0]
        home = self.folder / address
        home.mkdir(exist_ok=True)
        words = [word for word in container["args"] if "tls" not in word and word != "--port 0"]
        port = 26379 if pod.role == "sentinel" else 6379
        command = [*container["command"], f"--port {port}", f"--bind {address}", *words]
        places = {
            "/etc/valkey": str(self.users.parent),
            "/data": str(home),
            "/etc/hero-sentinel": str(K8S / "components" / "sentinel"),
        }
        for inside, outside in places.items():
            command = [re.sub(rf"{inside}\b", outside, word) for word in command]
        with (home / "log").open("ab") as log:
            self.running[address] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", **environment},
                preexec_fn=die_with_parent,
            )

    def kill(self, address: str) -> None:
        self.running[address].kill()
        self.running.pop(address).wait()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    programs, secret = tmp_path / "bin", tmp_path / "secret"
    programs.mkdir()
    secret.mkdir()
    (programs / "valkey-server").symlink_to(find_server()[0])
    (programs / "valkey-cli").write_text(CLI)
    (programs / "valkey-cli").chmod(0o755)
    with contextlib.ExitStack() as stack:
        for file, redirected in (("users.acl", contextlib.redirect_stdout), ("addresses", contextlib.redirect_stderr)):
            stack.enter_context(redirected(stack.enter_context((secret / file).open("w"))))
        assert cli.main(["acl", "--url", "redis://hero-broker:6379/0", "--run", "hero-1"]) == 0
    login = dict(re.findall(r"^(\w+) +redis://(.*)@", (secret / "addresses").read_text(), re.M))
    started = Here(tmp_path, secret / "users.acl", login)
    yield started
    for process in started.running.values():
        process.kill()
        process.wait()


def pod_of(variant: str, role: str) -> Pod:
    [found] = [pod for pod in pods(variant) if pod.role == role]
    return found


def connected(login: str, address: str) -> Any:
    return client_of(f"redis://{login}@{address}:6379/0")


def joins(learner: Broker) -> None:
    """It has a primary again: a Sentinel that names another is not yet one that all clients are sent to."""
    until(learner.check, "a primary for the learner", seconds=60, passing=(BrokerUnavailable,))


@pytest.mark.parametrize("role", ["broker", "weights"])
def test_a_broker_keeps_to_its_arguments(here: Here, role: str) -> None:
    address = "127.7.0.1"
    here.start(pod_of("prod", role), address)
    admin = connected(here.login["admin"], address)
    until(admin.ping, "server", seconds=60, passing=(redis.RedisError,))
    told = {key: admin.config_get(key)[key] for key in ("maxmemory-policy", "appendonly", "save")}
    assert told == {"maxmemory-policy": "noeviction", "appendonly": "yes" if role == "broker" else "no", "save": ""}
    assert int(admin.config_get("maxmemory")["maxmemory"]) >= 8 * 2**30
    with pytest.raises(redis.AuthenticationError):
        client_of(f"redis://{address}:6379/0").ping()
    Broker(f"redis://{here.login['actor']}@{address}:6379/0", "hero-1", "actor").check()


def test_a_viewer_may_ask_what_keda_asks(here: Here) -> None:
    address = "127.7.0.1"
    here.start(pod_of("prod", "broker"), address)
    url = f"redis://{here.login['learner']}@{address}:6379/0"
    admin = connected(here.login["admin"], address)
    until(admin.ping, "server", seconds=60, passing=(redis.RedisError,))
    Broker(url, "hero-1", "learner").check()
    viewer = connected(here.login["viewer"], address)
    assert viewer.execute_command("HELLO", "3") and viewer.ping()
    assert int(viewer.info()["redis_version"].partition(".")[0]) >= 7
    for one in objects("prod", "ScaledObject"):
        for trigger in (trigger["metadata"] for trigger in one["spec"]["triggers"]):
            stream, group = trigger["stream"], trigger["consumerGroup"]
            assert viewer.xlen(stream) == 0
            assert viewer.xpending(stream, group)["pending"] == 0
            [lag] = [found["lag"] for found in viewer.xinfo_groups(stream) if found["name"] == group.encode()]
            assert lag == 0
    assert admin.acl_log() == []


def test_sentinels_name_another_primary(here: Here) -> None:
    brokers, watchers = [f"127.7.1.{n}" for n in (1, 2, 3)], [f"127.7.2.{n}" for n in (1, 2, 3)]
    password = here.login["admin"].partition(":")[2]
    common = {"FIRST": brokers[0], "PASSWORD": password}

    def start(address: str) -> None:
        place = {"OWN": address, "CONFIG": str(here.folder / f"{address}.conf")}
        if address in brokers:
            here.start(pod_of(SENTINEL, "broker"), address, **common, **place, SENTINELS=" ".join(watchers))
        else:
            quick = {"USERS": str(here.users), "DOWN_AFTER_MS": "1000", "FAILOVER_TIMEOUT_MS": "5000"}
            here.start(pod_of(SENTINEL, "sentinel"), address, **common, **place, **quick)

    def role(address: str) -> str:
        return str(connected(here.login["admin"], address).info("replication")["role"])

    def replicas(address: str) -> int:
        return int(connected(here.login["admin"], address).info("replication")["connected_slaves"])

    def asked() -> str:
        return str(redis.Redis(watchers[0], 26379, decode_responses=True).sentinel_get_master_addr_by_name(NAME)[0])  # type: ignore[index]

    for address in brokers + watchers:
        start(address)
    passing = (redis.RedisError,)
    until(lambda: replicas(brokers[0]) == 2, "two replicas", seconds=60, passing=passing)
    knows = lambda: redis.Redis(watchers[0], 26379).sentinel_master(NAME)  # noqa: E731
    until(lambda: knows()["num-other-sentinels"] == 2 and knows()["num-slaves"] == 2, "Sentinels", 60, passing)
    places = ",".join(f"{address}:26379" for address in watchers)
    url = f"redis+sentinel://{here.login['learner']}@{places}/{NAME}/0"
    learner = Broker(url, "hero-1", "learner")
    joins(learner)
    for forbidden in ("SENTINEL FAILOVER hero", "SENTINEL SET hero quorum 1", "SENTINEL REMOVE hero", "SHUTDOWN"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            redis.Redis(watchers[0], 26379).execute_command(*forbidden.split())
    here.kill(brokers[0])
    until(lambda: asked() in brokers[1:], "failover", seconds=60, passing=passing)
    joins(learner)
    start(brokers[0])
    until(lambda: role(brokers[0]) == "slave", "the killed one as a replica", seconds=60, passing=passing)
    until(
        lambda: role(asked()) == "master" and replicas(asked()) == 2, "all together again", seconds=60, passing=passing
    )
    here.kill(watchers[0])
    start(watchers[0])
    until(lambda: asked() in brokers[1:], "a Sentinel that remembers", seconds=60, passing=passing)
    shown = "".join(" ".join(process.args) for process in here.running.values())  # type: ignore[arg-type]
    logs = "".join((here.folder / address / "log").read_text(errors="replace") for address in brokers + watchers)
    assert password not in shown + logs
    for file in here.folder.glob("*.conf"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_the_scripts_are_portable() -> None:
    for script in sorted((K8S / "components" / "sentinel").glob("*.sh")):
        for shell in filter(None, map(shutil.which, ("sh", "dash", "bash"))):
            done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, shlex.join([shell, str(script)]) + done.stderr
