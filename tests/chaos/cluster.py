"""A run as a cluster keeps it: one server, a learner, actors and scorers, each started again as soon as it is gone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.lifecycle import computing_environment, die_with_parent
from common.server import LocalServer

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    "learner": ["tests.chaos.watched_learner", "learner"],
    "actor": ["tests.chaos.fast_actor"],
    "real-actor": ["deploy.cli", "actor"],
    "scorer": ["deploy.cli", "scorer"],
}


@dataclass
class Worker:
    """One place of the cluster; its process changes with every death."""

    name: str
    module: list[str]
    process: subprocess.Popen[bytes]
    started: float
    signals: Counter[int] = field(default_factory=Counter)
    """What was sent to the process."""


@dataclass(frozen=True)
class Gone:
    """A process that has ended."""

    name: str
    code: int
    last_words: str
    signals: Counter[int]


class Server:
    """A server with an append-only file at a fixed address: killed and started again, it has what it acknowledged."""

    def __init__(self, folder: Path, memory_mb: int) -> None:
        self._folder, self._memory_mb = folder, memory_mb
        self._server = self._start()
        self.socket = self._server.socket

    @property
    def url(self) -> str:
        return self._server.url

    def restart(self) -> None:
        """SIGKILL, and up again."""
        self.stop()
        self._server = self._start()

    def lose(self) -> None:
        """SIGKILL, and up again at the same address with nothing."""
        self.stop()
        shutil.rmtree(self._folder / "appendonlydir")
        self._server = self._start()

    def stop(self) -> None:
        self._server.process.kill()
        self._server.process.wait()

    def _start(self) -> LocalServer:
        return LocalServer(self._folder, self._memory_mb, append_only=True)


class Cluster:
    """Workers by name; `mend` starts again what is gone."""

    def __init__(
        self, settings: Path, url: str, run_id: str, logs: Path, *, actors: int, scorers: int, real: bool
    ) -> None:
        self._settings, self._broker, self._run_id = str(settings), url, run_id
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
        worker = self.workers[name]
        if worker.process.poll() is None:
            os.kill(worker.process.pid, number)
            worker.signals[number] += 1

    def mend(self, away: Container[str] = ()) -> list[Gone]:
        """Starts again what is gone, but for places that are `away`."""
        gone = []
        for worker in self.workers.values():
            code = worker.process.poll()
            if code is not None and worker.name not in away:
                last_words = (self._logs / f"{worker.name}.log").read_text()[-500:]
                gone.append(Gone(worker.name, code, last_words, worker.signals))
                worker.process, worker.started = self._spawn(worker.name, worker.module), time.monotonic()
                worker.signals = Counter()
        return gone

    def drain(self, names: list[str], seconds: float) -> list[tuple[str, int | None]]:
        """SIGTERM and a deadline; (name, exit code) of each, None for one that is still there."""
        for name in names:
            self.signal(name, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for name in names:
            with suppress(subprocess.TimeoutExpired):
                self.workers[name].process.wait(max(0.1, deadline - time.monotonic()))
        return [(name, self.workers[name].process.poll()) for name in names]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.process.kill()
        for worker in self.workers.values():
            worker.process.wait()

    def _inside(self, name: str) -> list[str]:
        """What the command of a place begins with."""
        return []

    def _url(self, name: str) -> str:
        """Where a place finds the broker."""
        return self._broker

    def _spawn(self, name: str, module: list[str]) -> subprocess.Popen[bytes]:
        flags = ["--broker.url", self._url(name), "--run.id", self._run_id]
        with (self._logs / f"{name}.log").open("ab") as out:
            return subprocess.Popen(
                [*self._inside(name), sys.executable, "-m", *module, self._settings, *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=computing_environment(threads=1) | {"PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                preexec_fn=die_with_parent,
            )
