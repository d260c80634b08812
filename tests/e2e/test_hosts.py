"""A run on several hosts by deploy/hosts/start.sh, with real processes; ssh is a shell of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.running import ENVIRONMENT, prepare, processes
from tests.servers import free_ports
from tests.until import until

ROOT = Path(__file__).parents[2]
SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
echo "$1" >> "$HOSTS"
shift
env -u REDIS_URL sh -c "$*"
"""
"""As the real one: words joined by spaces, for a shell that has none of this side's environment."""


@pytest.mark.timeout(900)
def test_a_run_is_started_stopped_and_goes_on_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    config, metrics = prepare(tmp_path), tmp_path / "run" / "metrics.jsonl"
    hosts = ["--actors", "gpu1", "--scorers", "cpu1,cpu2", "--port", str(free_ports(1)[0])]
    command = ["bash", str(ROOT / "deploy" / "hosts" / "start.sh"), str(config), *hosts]
    environment = os.environ | ENVIRONMENT | {
        "PATH": f"{ssh.parent}:{os.environ['PATH']}", "HOSTS": str(tmp_path / "hosts"), "BROKER_HOST": "127.0.0.1",
        "HERO_RUN__STEPS": "1000",
    }  # fmt: skip

    def started(**changes: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "output").open("ab") as out:
            return subprocess.Popen(command, env=environment | changes, stdout=out, stderr=out, start_new_session=True)

    def steps() -> int:
        return len(metrics.read_text().splitlines()) if metrics.is_file() else 0

    running = started()
    try:
        until(lambda: steps() >= 3 or running.poll() is not None, "three steps", seconds=300)
        running.send_signal(signal.SIGTERM)
        assert running.wait(180) == 130, (tmp_path / "output").read_text()
        until(lambda: not here(tmp_path), "end of all: nobody is left")
        # When it is started again, to end soon
        before = steps()
        running = started(HERO_RUN__STEPS=str(before + 2))
        assert running.wait(300) == 0, (tmp_path / "output").read_text()
        until(lambda: not here(tmp_path), "end of all: nobody is left")
    finally:
        for pid in here(tmp_path):
            os.kill(pid, signal.SIGKILL)
    assert (tmp_path / "hosts").read_text().split().count("gpu1") == 2
    books = [json.loads(line) for line in (tmp_path / "output").read_text().splitlines() if '"finished"' in line]
    assert books[-1]["step"] == before + 2 and books[-1]["dead_lettered"] == 0


def here(folder: Path) -> list[int]:
    """Processes whose command names the folder."""
    return [one.pid for one in processes() if str(folder) in one.command and one.pid != os.getpid()]
