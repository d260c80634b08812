"""A run on several hosts under one sequence of network faults."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import permutations
from pathlib import Path

from common.address import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from common.errors import BrokerUnavailable, Fenced
from common.lifecycle import Every
from common.streams import Broker
from tests.chaos import job
from tests.chaos.cluster import Worker
from tests.chaos.fire import RECOVER_STEPS
from tests.chaos.host_cluster import HostCluster
from tests.chaos.hosts import Host, Network
from tests.chaos.network_faults import NetworkFault, NetworkFaults
from tests.chaos.steps import Steps

GOES_ON_S = READ_TIMEOUT_S + CONNECT_TIMEOUT_S + 5.0  # a reply that will not come, a connection, two busy cores
LEAVES_S = 2 * GOES_ON_S  # a call that hangs, the leases, and the last word to the broker
STARTING_S = 120.0  # imports of the learner, on two busy cores
RECOVER_S = 240.0  # after the last fault: three steps and a sign of everybody, or the run is stuck
DRAIN_S = 60.0
DELAY_S, LOSS = 0.2, 0.1
GUEST_S = 10.0  # how long an actor or scorer that was taken for dead works beside its successor
POLL_S = 0.05


class Parted:
    """Hosts that lose each other; `turn` does whatever is due, and sees to it that nobody hangs or ends."""

    def __init__(self, network: Network, folder: Path, seed: int) -> None:
        self.folder, self.run_id = folder, f"partitions-{seed}"
        self._network = network
        self.settings = job.prepare(folder, folder / "run", real=False)
        self.cluster = HostCluster(network, self.settings, self.run_id, folder, actors=2, scorers=2)
        self.broker = Broker(self.cluster.server.url, self.run_id, "watch")
        self._faults = NetworkFaults(seed, "broker", list(self.cluster.workers))
        self._next = time.time() + self._faults.pause()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._disturbed: defaultdict[Host, float] = defaultdict(float)
        """Until when a host could not talk to the broker as it should."""
        self._returning: set[Host] = set()
        self._signs: dict[int, float] = {}
        """By process: when its last heartbeat was."""
        self._replaced: dict[Host, Worker] = {}
        self._leaving: dict[int, float] = {}
        """By process: when it was asked to leave."""
        self._server_up = True
        self._pulse = Every(1.0)
        self.steps = Steps(folder / "run" / "metrics.jsonl")
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.slowest_return_s = self.slowest_leave_s = 0.0

    def turn(self) -> None:
        """Whatever is due now."""
        self._watch()
        now = time.time()
        for due in [item for item in self._later if item[0] <= now]:
            self._later.remove(due)
            due[1]()
        if now >= self._next:
            self._next = now + self._faults.pause()
            self._meet(self._faults.next())

    def calm(self) -> None:
        """Ends every fault that lasts, and waits for training to go on and for a sign of everybody."""
        for _, action in sorted(self._later, key=lambda item: item[0]):
            action()
        self._later = []
        now = time.time()
        for host in self._disturbed:
            self._disturbed[host] = min(self._disturbed[host], now)
        steps, deadline = self.steps.look(), now + RECOVER_S
        while self.steps.look() < steps + RECOVER_STEPS or self._replaced or self._missing(now):
            self._watch()
            if time.time() > deadline:
                self.violations.append(
                    f"{self.steps.count - steps} of {RECOVER_STEPS} steps within {RECOVER_S:.0f} s of the last fault, "
                    f"no sign of {self._missing(now)}, still there: {[h.name for h in self._replaced]}"
                )
                return
            time.sleep(POLL_S)

    def end(self) -> None:
        """Drains everybody, the learner last: what workers hand back is in the broker then."""
        names = list(self.cluster.workers)
        for name, code in self.cluster.drain(names[1:], DRAIN_S) + self.cluster.drain(names[:1], DRAIN_S):
            if code != 0:
                self.violations.append(f"{name} did not drain: exit code {code}")

    # -- what happens ----------------------------------------------------------------------------------------

    def _meet(self, fault: NetworkFault) -> None:
        met = fault.between[1]
        hosts = self.cluster.hosts | {"broker": self.cluster.broker_host}
        if any(name in self.cluster.away for name in fault.between) or (fault.kind == "reboot" and not self._server_up):
            return
        if fault.kind in ("replace", "leave"):
            pid = self.cluster.workers[met].process.pid
            if pid not in self._signs or pid in self._leaving:
                return  # it has not begun, or is about to end
        self.counts[fault.kind] += 1
        with (self.folder / "faults.jsonl").open("a") as out:
            out.write(json.dumps({"time": time.time(), **asdict(fault)}) + "\n")
        if fault.kind == "partition":
            self.counts["one way"] += fault.one_way
            source, target = (hosts[name] for name in fault.between)
            self._part([(source, target)] if fault.one_way else [(source, target), (target, source)], fault.seconds)
        elif fault.kind == "isolate":
            self._isolate(hosts["broker"], fault.seconds)
        elif fault.kind == "vanish":
            self.cluster.vanish(met)
            self._after(fault.seconds, lambda: self.cluster.come(met))
        elif fault.kind == "replace":
            self._replace(met, fault.seconds)
        elif fault.kind == "leave":
            self._isolate(hosts[met], fault.seconds)
            self.cluster.signal(met, signal.SIGTERM)
            self._leaving[self.cluster.workers[met].process.pid] = time.time()
        elif fault.kind == "reboot":
            self._reboot(fault.seconds)
        elif fault.kind == "cut":
            self.cluster.proxy.cut()
        elif fault.kind == "delay":
            self.cluster.proxy.delay(DELAY_S)
            self._after(fault.seconds, lambda: self.cluster.proxy.delay(0.0))
        elif fault.kind == "loss":
            self.cluster.proxy.lose(LOSS)
            self._after(fault.seconds, lambda: self.cluster.proxy.lose(0.0))

    def _part(self, ways: Iterable[tuple[Host, Host]], seconds: float) -> None:
        for source, target in ways:
            self._network.cut(source, target)
            self._after(seconds, lambda way=(source, target): self._network.heal(*way))
            for host in {source, target} if self.cluster.broker_host in (source, target) else ():
                self._disturb(host, seconds)

    def _isolate(self, host: Host, seconds: float) -> None:
        self._part([way for way in permutations(self._network.hosts, 2) if host in way], seconds)

    def _replace(self, name: str, seconds: float) -> None:
        host, worker = self.cluster.replace(name)
        self._isolate(host, seconds)
        if name == "learner":
            self._replaced[host] = worker
        else:
            self._after(seconds + GUEST_S, lambda: self._network.remove(host))

    def _reboot(self, seconds: float) -> None:
        self._isolate(self.cluster.broker_host, seconds)
        self.cluster.server.kill()
        self._server_up = False

        def up() -> None:
            self.cluster.server.start()
            self._server_up = True

        self._after(seconds, up)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((time.time() + seconds, action))

    def _disturb(self, host: Host, seconds: float) -> None:
        self._disturbed[host] = max(self._disturbed[host], time.time() + seconds)
        self._returning.add(host)

    # -- what must not happen --------------------------------------------------------------------------------

    def _watch(self) -> None:
        self.steps.look()
        pids = {name: worker.process.pid for name, worker in self.cluster.workers.items()}
        for gone in self.cluster.mend(self.cluster.away):
            pid = pids[gone.name]
            asked = self._leaving.pop(pid, None)
            if asked is not None:
                self.slowest_leave_s = max(self.slowest_leave_s, time.time() - asked)
            # One that starts while it cannot reach the broker says so and ends; it is started again.
            unlucky = gone.code == BrokerUnavailable.exit_code and (asked is not None or pid not in self._signs)
            if not unlucky and not (asked is not None and gone.code == 0):
                self.violations.append(f"{gone.name} ended by itself with exit code {gone.code}")
        for name, pid in pids.items():
            if time.time() > self._leaving.get(pid, float("inf")) + LEAVES_S:
                del self._leaving[pid]
                self.violations.append(f"{name} did not leave within {LEAVES_S:.0f} s, cut off as it was")
        if self._pulse.due():
            self._read_signs()
            self._hear()
        self._see_old_learners_off()

    def _read_signs(self) -> None:
        if self._server_up:
            for consumer, state in self.broker.processes().items():
                self._signs[int(consumer.rsplit("-", 2)[1])] = time.time() - state["heard_s"]

    def _hear(self) -> None:
        """Everybody who can talk to the broker does."""
        now = time.time()
        for name, worker in self.cluster.workers.items():
            host, sign = self.cluster.hosts[name], self._signs.get(worker.process.pid, 0.0)
            quiet = now - max(self._disturbed[host], self._disturbed[self.cluster.broker_host])
            if host in self._returning and sign > self._disturbed[host] > 0:
                self._returning.discard(host)
                self.slowest_return_s = max(self.slowest_return_s, sign - self._disturbed[host])
            lives = time.monotonic() - worker.started > STARTING_S
            if name not in self.cluster.away and lives and min(quiet, now - sign) > GOES_ON_S:
                self.violations.append(f"{name} gave no sign for {min(quiet, now - sign):.0f} s, and nothing held it")
                self._disturb(host, 0.0)

    def _missing(self, since: float) -> list[str]:
        return [n for n, w in self.cluster.workers.items() if self._signs.get(w.process.pid, 0.0) <= since]

    def _see_old_learners_off(self) -> None:
        """A learner that was taken for dead must end as soon as it can hear of its successor."""
        for host, worker in list(self._replaced.items()):
            code = worker.process.poll()
            if code is None and time.time() < self._disturbed[host] + GOES_ON_S:
                continue
            if code != Fenced.exit_code:
                self.violations.append(f"an old learner came back and did not leave as it should: exit code {code}")
            del self._replaced[host]
            self._network.remove(host)
