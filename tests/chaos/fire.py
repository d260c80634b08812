"""One cluster under one sequence of faults."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Literal

import redis
from redis.exceptions import RedisClusterException

from common.address import client_of
from common.errors import BrokerUnavailable
from common.lanes import GROUPS, Stage
from common.lifecycle import LEFT_AT_ONCE
from tests.chaos import faults, job
from tests.chaos.cluster import Cluster, Gone, Server
from tests.chaos.faults import Fault, Faults
from tests.chaos.proxy import Proxy
from tests.chaos.steps import Steps
from tests.servers import Nodes, Watched
from tests.small_disk import SmallDisk

BrokerKind = Literal["server", "sentinel", "cluster"]
MEMORY_MB = DISK_MB = 64
RECOVER_S = 180.0  # after the last fault: three steps, or the run is stuck
RECOVER_STEPS = 3
DRAIN_S = 60.0
DELAY_S = 0.2
NOT_THERE = "start it, or set broker.url or REDIS_URL"  # a worker that starts while the server is away ends so
RESTART_S = 30.0
AIM_S = 15.0  # a worker is stopped when it holds a message, at the latest then
LOSS_S = 15.0  # the learner compares its books with the broker's every 10 s
POLL_S = 0.02


class Fire:
    """A learner, actors, scorers, a server, a proxy before it and a small disk; `turn` does whatever is due."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        broker: BrokerKind,
        actors: int,
        scorers: int,
        real: bool,
        losses: bool,
        weights_from: job.WeightsFrom,
    ) -> None:
        self.run_id = f"soak-{seed}"
        self.disk = SmallDisk(folder / "disk", DISK_MB)
        self.folder = self.disk.folder / "run"
        self.settings = job.prepare(folder, self.folder, real, weights_from)
        self.server: Server | Watched | Nodes
        weights = dict(faults.WEIGHTS)
        if broker == "server":
            self.server = Server(folder / "b", MEMORY_MB)
            self.proxy = Proxy(folder / "p", self.server.socket)
            url = self.proxy.url
        else:
            self.server = {"sentinel": Watched, "cluster": Nodes}[broker](folder / "b", MEMORY_MB)
            weights = {kind: weight for kind, weight in weights.items() if kind not in faults.ONE_SERVER}
            url = self.server.url
        self.client = client_of(self.server.url)
        logs = folder / "logs"
        self.cluster = Cluster(self.settings, url, self.run_id, logs, actors=actors, scorers=scorers, real=real)
        workers = [name for name in self.cluster.workers if name != "learner"]
        pause_s = faults.MEAN_PAUSE_REAL_S if real else faults.MEAN_PAUSE_S
        self._weights = weights | (faults.LOSSES if losses else {})
        self.faults = Faults(seed, workers, self._weights, pause_s)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.steps = Steps(self.folder / "metrics.jsonl")
        self._aims: dict[str, tuple[float, float]] = {}
        """Who is to be stopped while it holds a message: until when that is waited for, and for how long."""
        self._resume: dict[str, float] = {}
        self._refill_at = self._undelay_at = self._free_at = float("inf")
        self._restarted = self._lost = float("-inf")
        self._next = time.monotonic() + self.faults.pause()
        self._plan_learner()

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith("kill"))

    @property
    def unmet(self) -> bool:
        """Whether a kind of loss was asked for and has not come yet."""
        return any(self._weights.get(kind) and not self.counts[kind] for kind in faults.LOSSES)

    def turn(self) -> None:
        """Whatever is due now."""
        self.mend()
        now = time.monotonic()
        for name in [name for name, at in self._resume.items() if now >= at]:
            self.cluster.signal(name, signal.SIGCONT)
            del self._resume[name]
        for name, (until, seconds) in list(self._aims.items()):
            if now >= until or self._holds(name):
                del self._aims[name]
                self.cluster.signal(name, signal.SIGSTOP)
                self._resume[name] = now + seconds
        if now >= self._refill_at:
            self._set_memory(MEMORY_MB * 2**20)
            self._refill_at = float("inf")
        if now >= self._undelay_at:
            self.proxy.delay(0.0)
            self._undelay_at = float("inf")
        if now >= self._free_at:
            self.disk.free()
            self._free_at = float("inf")
        if now >= self._next:
            self._next = now + self.faults.pause()
            self._meet(self.faults.next())
        if self._learner_due(now):
            self._meet_learner(now)
            self._plan_learner()

    def mend(self) -> None:
        away = time.monotonic() < self._restarted + RESTART_S
        for gone in self.cluster.mend():
            starting = gone.code == BrokerUnavailable.exit_code and NOT_THERE in gone.last_words
            if not asked_for(gone) and not (away and starting):
                self.violations.append(f"{gone.name} ended by itself with exit code {gone.code}")

    def calm(self) -> None:
        """Ends every fault that lasts, and waits for training to go on."""
        for name in self._resume:
            self.cluster.signal(name, signal.SIGCONT)
        if isinstance(self.server, Server):
            self._set_memory(MEMORY_MB * 2**20)
            self.proxy.delay(0.0)
        self.disk.free()
        steps, deadline = self.steps.look(), time.monotonic() + RECOVER_S
        while self.steps.look() < steps + RECOVER_STEPS or time.monotonic() < self._lost + LOSS_S:
            self.mend()
            if time.monotonic() > deadline:
                self.violations.append(f"no {RECOVER_STEPS} steps within {RECOVER_S:.0f} s of the last fault")
                return
            time.sleep(POLL_S)

    def end(self) -> None:
        """Drains everybody, the learner last: what workers hand back is in the broker then."""
        names = list(self.cluster.workers)
        for name, code in self.cluster.drain(names[1:], DRAIN_S) + self.cluster.drain(names[:1], DRAIN_S):
            twice = code == LEFT_AT_ONCE and self.cluster.workers[name].signals[signal.SIGTERM] > 1  # it still drained
            if code != 0 and not twice and not (code == -signal.SIGTERM and name != "learner"):  # had not yet begun
                self.violations.append(f"{name} did not drain: exit code {code}")

    def close(self) -> None:
        self.cluster.close()
        if isinstance(self.server, Server):
            self.proxy.close()
        self.server.stop()
        self.disk.close()

    def _meet(self, fault: Fault) -> None:
        self.counts[f"{fault.kind} {fault.target.split('-')[0]}".strip()] += 1
        if fault.kind == "kill":
            self.cluster.signal(fault.target, signal.SIGKILL)
        elif fault.kind == "term":
            self.cluster.signal(fault.target, signal.SIGTERM)
        elif fault.kind == "pause":
            self._aims[fault.target] = time.monotonic() + AIM_S, fault.seconds
        elif fault.kind == "restart_server":
            self.counts["kill server"] += 1
            self.server.restart()
            self._restarted = time.monotonic()
        elif fault.kind == "cut":
            self.proxy.cut()
        elif fault.kind == "delay":
            self.proxy.delay(DELAY_S)
            self._undelay_at = time.monotonic() + fault.seconds
        elif fault.kind == "fill_server":
            self._set_memory(1)
            self._refill_at = time.monotonic() + fault.seconds
        elif fault.kind == "fill_disk":
            self.disk.fill()
            self._free_at = time.monotonic() + fault.seconds
        elif fault.kind == "flush":
            self.client.flushall()
            self._lost = time.monotonic()
        elif fault.kind == "empty_server":
            assert isinstance(self.server, Server)
            self.server.lose()
            self._restarted = self._lost = time.monotonic()

    def _meet_learner(self, now: float) -> None:
        self.counts[f"{self._plan.kind} learner"] += 1
        if self._plan.kind == "pause":
            self._resume["learner"] = now + self._plan.stopped_s
        numbers = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "pause": signal.SIGSTOP}
        self.cluster.signal("learner", numbers[self._plan.kind])

    def _holds(self, name: str) -> bool:
        """Whether a worker has a message, seen within POLL_S: a scorer has one for milliseconds."""
        stage: Stage = "tickets" if name.startswith("actor") else "rollouts"
        pid = f"-{self.cluster.workers[name].process.pid}-".encode()
        deadline = time.monotonic() + POLL_S
        while time.monotonic() < deadline:
            with suppress(redis.RedisError, RedisClusterException):  # the server is being killed
                consumers = self.client.xinfo_consumers(f"{{{self.run_id}}}:{stage}", GROUPS[stage])
                if any(pid in consumer["name"] and consumer["pending"] for consumer in consumers):
                    return True
        return False

    def _set_memory(self, limit_bytes: int) -> None:
        self.client.config_set("maxmemory", limit_bytes)

    def _plan_learner(self) -> None:
        self._plan = self.faults.learner()
        self._life_began, self._life_steps = time.monotonic(), self.steps.look()
        self._reached: float | None = None

    def _learner_due(self, now: float) -> bool:
        if self._plan.steps is None:
            return now >= self._life_began + self._plan.seconds
        if self._reached is None and self.steps.look() >= self._life_steps + self._plan.steps:
            self._reached = now
        return self._reached is not None and now >= self._reached + self._plan.seconds


def asked_for(gone: Gone) -> bool:
    """Whether a signal explains the end of a process: killed; drained, or not yet able to; asked twice."""
    if gone.code == -signal.SIGKILL:
        return gone.signals[signal.SIGKILL] > 0
    return gone.signals[signal.SIGTERM] > (gone.code == LEFT_AT_ONCE) and gone.code in (
        0,
        -signal.SIGTERM,
        LEFT_AT_ONCE,
    )
