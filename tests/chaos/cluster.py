"""A run as a cluster keeps it: one server, a learner, actors and scorers, each started again as soon as it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from common.lifecycle import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
MODULES = {
    "learner": ["deploy.cli", "learner"],
    "actor": ["tests.chaos.fast_actor"],
    "real-actor": ["deploy.cli", "actor"],
    "scorer": ["deploy.cli", "scorer"],
}
SERVER_START_S = 20.0


@dataclass
class Worker:
    """One place of the cluster; its process changes with every death."""

    name: str
    module: list[str]
    process: subprocess.Popen[bytes]
    started: float


class Server:
    """A server with an append-only file on a fixed socket: killed and started again, it has what it acknowledged."""

    def __init__(self, folder: Path, binary: str, memory_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self._command = [
            binary, "--port", "0", "--unixsocket", str(self.socket), "--maxmemory", f"{memory_mb}mb",
            "--maxmemory-policy", "noeviction", "--save", "", "--appendonly", "yes", "--dir", str(folder),
        ]  # fmt: skip
        self.process = self._start()

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5)

    def restart(self) -> None:
        """SIGKILL, and up again."""
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self.socket.unlink(missing_ok=True)
        with (self.folder / "server.log").open("ab") as out:
            process = subprocess.Popen(self._command, stdout=out, stderr=out, preexec_fn=die_with_parent)
        deadline = time.monotonic() + SERVER_START_S
        while True:
            try:
                self.client().ping()
                return process
            except redis.RedisError:  # also while it reads its file
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start, see {self.folder}/server.log") from None
                time.sleep(0.02)


class Cluster:
    """Workers by name; `mend` starts again what is gone."""

    def __init__(
        self, settings: Path, url: str, run_id: str, logs: Path, *, actors: int, scorers: int, real: bool
    ) -> None:
        self._arguments = [str(settings), "--broker.url", url, "--run.id", run_id]
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        self.workers: dict[str, Worker] = {}
        places = [("learner", MODULES["learner"])]
        places += [(f"actor-{n}", MODULES["real-actor" if real else "actor"]) for n in range(actors)]
        places += [(f"scorer-{n}", MODULES["scorer"]) for n in range(scorers)]
        for name, module in places:
            self.workers[name] = Worker(name, module, self._spawn(name, module), time.monotonic())

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to the process of a place, if it lives."""
        process = self.workers[name].process
        if process.poll() is None:
            os.kill(process.pid, number)

    def mend(self) -> list[tuple[str, int]]:
        """Starts again what is gone; (name, exit code) of each."""
        gone = []
        for worker in self.workers.values():
            code = worker.process.poll()
            if code is not None:
                gone.append((worker.name, code))
                worker.process, worker.started = self._spawn(worker.name, worker.module), time.monotonic()
        return gone

    def drain(self, names: list[str], seconds: float) -> list[tuple[str, int]]:
        """SIGTERM and a deadline; (name, exit code) of each."""
        for name in names:
            self.signal(name, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        return [(n, self.workers[n].process.wait(max(0.1, deadline - time.monotonic()))) for n in names]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.process.kill()
        for worker in self.workers.values():
            worker.process.wait()

    def _spawn(self, name: str, module: list[str]) -> subprocess.Popen[bytes]:
        with (self._logs / f"{name}.log").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", *module, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | ENVIRONMENT,
                cwd=ROOT,
                preexec_fn=die_with_parent,
            )
