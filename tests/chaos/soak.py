"""`python -m tests.chaos.soak --kills N --seed S`: a run under fire, and an audit of what came of every ticket.

One server with an append-only file, the real DeepSpeed learner with a tiny model, real actors around a sampler without
a model (`--real-engine`: around vLLM), real scorers with their verification children. They are killed, asked to leave
and frozen at any instant, their connections are cut in mid-reply and delayed, the server is killed and filled up;
whoever is gone is started again at once. At the end the faults stop, training must go on, all drain, and the surviving
checkpoint is compared with the broker. The last line of standard output is JSON; exit code 1 when a ticket is lost,
trained twice or repeated without cause, or when a process ended by itself.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
from rich.progress import TextColumn

from common.errors import BrokerUnavailable
from common.lifecycle import LEFT_AT_ONCE
from common.progress import Bars
from common.streams import Broker
from learner import checkpoint
from learner.ledger import Ledger
from tests.chaos.audit import Findings, Observer, audit, unacknowledged
from tests.chaos.cluster import Cluster, Server
from tests.chaos.faults import Fault, Faults
from tests.chaos.proxy import Proxy

GROUPS_PER_STEP = 4
MEMORY_MB = 64
RECOVER_S = 180.0  # after the last fault: three steps, or the run is stuck
RECOVER_STEPS = 3
DRAIN_S = 60.0
DELAY_S = 0.2
RESTART_S = 10.0  # a worker that starts while the server is away says so and ends; it is started again
POLL_S = 0.02
ALLOWED_ENDS = (-signal.SIGKILL, -signal.SIGTERM, 0, LEFT_AT_ONCE)  # 0: it drained; at once: asked twice

CONFIG = """
[run]
name = "soak"
folder = "{folder}/run"
steps = 1000000
[broker]
claim_after_ms = 1000
max_deliveries = 1000
[model]
policy = "{folder}/policy"
[data]
train = "{folder}/data.jsonl"
max_prompt_tokens = 96
[sampling]
completions = 4
max_tokens = 16
[actor]
groups_in_flight = 4
max_model_len = 192
kv_cache_gib = 0.1
max_logprob_difference = {difference}
[reward]
mode = "verifier"
[learner]
groups_per_step = {groups}
max_staleness = 2
lr = 1e-3
checkpoint_every_steps = 2
[weights]
folder = "{folder}/weights"
"""


class Soak:
    """One cluster under one sequence of faults."""

    def __init__(self, folder: Path, seed: int, *, actors: int, scorers: int, real: bool) -> None:
        self.folder = folder
        self.run_id = f"soak-{seed}"
        settings = prepare(folder, real)
        self.server = Server(folder / "b", MEMORY_MB)
        self.proxy = Proxy(folder / "p", self.server.socket)
        self.cluster = Cluster(
            settings, self.proxy.url, self.run_id, folder / "logs", actors=actors, scorers=scorers, real=real
        )
        self.faults = Faults(seed, [name for name in self.cluster.workers if name != "learner"])
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._metrics_bytes = self._steps = 0
        self._resume: dict[str, float] = {}
        self._refill_at = self._undelay_at = float("inf")
        self._restarted = float("-inf")
        self._next = time.monotonic() + self.faults.pause()
        self._plan_learner()

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith("kill"))

    def steps(self) -> int:
        """Steps that the metrics file has, lost branches included; reads what is new."""
        file = self.folder / "run" / "metrics.jsonl"
        if file.exists():
            with file.open("rb") as lines:
                lines.seek(self._metrics_bytes)
                new = lines.read()
            self._metrics_bytes += len(new)
            self._steps += new.count(b"\n")
        return self._steps

    def turn(self) -> None:
        """Whatever is due now."""
        self.mend()
        now = time.monotonic()
        for name in [name for name, at in self._resume.items() if now >= at]:
            self.cluster.signal(name, signal.SIGCONT)
            del self._resume[name]
        if now >= self._refill_at:
            self._set_memory(MEMORY_MB * 2**20)
            self._refill_at = float("inf")
        if now >= self._undelay_at:
            self.proxy.delay(0.0)
            self._undelay_at = float("inf")
        if now >= self._next:
            self._next = now + self.faults.pause()
            self._meet(self.faults.next())
        if self._learner_due(now):
            self.counts["kill learner"] += 1
            self.cluster.signal("learner", signal.SIGKILL)
            self._plan_learner()

    def mend(self) -> None:
        for name, code in self.cluster.mend():
            unlucky = code == BrokerUnavailable.exit_code and time.monotonic() < self._restarted + RESTART_S
            if code not in ALLOWED_ENDS and not unlucky:
                self.violations.append(f"{name} ended by itself with exit code {code}")

    def calm(self) -> None:
        """Ends every fault that lasts, and waits for training to go on."""
        for name in self._resume:
            self.cluster.signal(name, signal.SIGCONT)
        self._set_memory(MEMORY_MB * 2**20)
        self.proxy.delay(0.0)
        steps, deadline = self.steps(), time.monotonic() + RECOVER_S
        while self.steps() < steps + RECOVER_STEPS:
            self.mend()
            if time.monotonic() > deadline:
                self.violations.append(f"no {RECOVER_STEPS} steps within {RECOVER_S:.0f} s of the last fault")
                return
            time.sleep(POLL_S)

    def end(self) -> None:
        """Drains everybody, the learner last: what workers hand back is in the broker then."""
        names = list(self.cluster.workers)
        for name, code in self.cluster.drain(names[1:], DRAIN_S) + self.cluster.drain(names[:1], DRAIN_S):
            if code != 0 and not (code == -signal.SIGTERM and name != "learner"):  # that one had not yet begun
                self.violations.append(f"{name} did not drain: exit code {code}")

    def close(self) -> None:
        self.cluster.close()
        self.proxy.close()
        self.server.stop()

    def _meet(self, fault: Fault) -> None:
        self.counts[f"{fault.kind} {fault.target.split('-')[0]}".strip()] += 1
        if fault.kind == "kill":
            self.cluster.signal(fault.target, signal.SIGKILL)
        elif fault.kind == "term":
            self.cluster.signal(fault.target, signal.SIGTERM)
        elif fault.kind == "pause":
            self.cluster.signal(fault.target, signal.SIGSTOP)
            self._resume[fault.target] = time.monotonic() + fault.seconds
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

    def _set_memory(self, limit_bytes: int) -> None:
        self.server.client().config_set("maxmemory", limit_bytes)

    def _plan_learner(self) -> None:
        self._plan = self.faults.learner_end()
        self._life_began, self._life_steps = time.monotonic(), self.steps()
        self._reached: float | None = None

    def _learner_due(self, now: float) -> bool:
        if self._plan.steps is None:
            return now >= self._life_began + self._plan.seconds
        if self._reached is None and self.steps() >= self._life_steps + self._plan.steps:
            self._reached = now
        return self._reached is not None and now >= self._reached + self._plan.seconds


def prepare(folder: Path, real: bool) -> Path:
    """Settings, a tiny policy and twenty problems."""
    from tests import tiny_models

    tiny_models.policy(folder / "policy", max_tokens=192)
    rows = [json.dumps({"question": f"{i} + {i} = ?", "answer": str(2 * i)}) for i in range(20)]
    (folder / "data.jsonl").write_text("\n".join(rows) + "\n")
    settings = folder / "soak.toml"
    # The sampler without a model knows no log-probabilities.
    settings.write_text(CONFIG.format(folder=folder, groups=GROUPS_PER_STEP, difference=0.001 if real else 1e9))
    return settings


def surviving(folder: Path) -> tuple[int, Ledger]:
    """Step and ledger of the newest whole checkpoint."""
    found = checkpoint.latest(folder / "run" / "checkpoints")
    if found is None:
        raise RuntimeError(f"no checkpoint under {folder}/run")
    return found.step, Ledger.restored(msgpack.unpackb(found.state)["ledger"])


def soak(
    folder: Path, seed: int, kills: int, *, actors: int, scorers: int, real: bool, minutes: float
) -> dict[str, Any]:
    """The closing line of a soak, and every violation on standard error."""
    started = time.monotonic()
    run = Soak(folder, seed, actors=actors, scorers=scorers, real=real)
    observer = Observer(str(run.server.socket), run.run_id)
    learner_kills = kills // 10
    try:
        with Bars(TextColumn("{task.fields[steps]} steps")) as bar:
            task = bar.add_task("kills", total=kills, steps=0)
            observer.start()
            while run.kills < kills or run.counts["kill learner"] < learner_kills:
                if time.monotonic() - started > 60 * minutes:
                    run.violations.append(f"{run.kills} of {kills} kills in {minutes:g} minutes")
                    break
                run.turn()
                bar.update(task, completed=min(run.kills, kills), steps=run.steps())
                time.sleep(POLL_S)
        run.calm()
        run.end()
        observer.end()
        broker = Broker(run.server.url, run.run_id, "audit")
        step, ledger = surviving(folder)
        findings = audit(
            ledger,
            step,
            GROUPS_PER_STEP,
            broker.open_tickets(),
            unacknowledged(run.server.client(), run.run_id),
            observer.published,
        )
    finally:
        run.close()
    return report(run, seed, step, ledger, findings, time.monotonic() - started)


def report(run: Soak, seed: int, step: int, ledger: Ledger, findings: Findings, seconds: float) -> dict[str, Any]:
    for line in [*run.violations, *findings.lost, *findings.duplicated, *findings.repeated]:
        print(line, file=sys.stderr)
    return {
        "seed": seed,
        "kills": run.kills,
        "faults": dict(sorted(run.counts.items())),
        **ledger.counts(),
        "lost": len(findings.lost),
        "duplicated": len(findings.duplicated),
        "repeated": len(findings.repeated),
        "violations": len(run.violations),
        "steps": step,
        "learner_kills": run.counts["kill learner"],
        "seconds": round(seconds, 1),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000, help="SIGKILLs in all, a tenth of them the learner's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real-engine", action="store_true", help="vLLM in the actors; an actor takes 10 s to start")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--scorers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=75.0, help="fail when the kills take longer")
    parser.add_argument("--folder", type=Path, help="keep everything here (default: a temporary folder)")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = soak(
            folder.resolve(),
            given.seed,
            given.kills,
            actors=given.actors,
            scorers=given.scorers,
            real=given.real_engine,
            minutes=given.minutes,
        )
    print(json.dumps(result))
    return 1 if result["lost"] or result["duplicated"] or result["repeated"] or result["violations"] else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
