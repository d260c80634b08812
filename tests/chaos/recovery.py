"""`python -m tests.chaos.recovery --times N`: how long a killed worker is missed, and by whom.

One actor, one scorer, the learner, each killed N times while it works and started again at once:

scorer    kill to the next scored group; at most the claim delay and 3 s
actor     kill to the next sampled group; at most the start of its engine, as measured, and 2 s
learner   kill to the next optimizer step; at most its start with the checkpoint's load, as measured, and 2 s

Then two actors and two scorers: when one of two is killed and stays away, groups come at no less than half of the rate
before, by the median. The last line of standard output is JSON, times in seconds; exit code 1 when one is over
its bound.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.progress import TextColumn

from common.address import client_of
from common.progress import Bars
from common.streams import Broker
from tests.chaos import job
from tests.chaos.cluster import Cluster, Server
from tests.chaos.steps import Steps

CLAIM_S = 1.0  # as the job has it
STUCK_S = 120.0
RATE_S = 5.0
PRODUCES = {"actor-0": "rollouts", "scorer-0": "scored"}
SHARE_LEFT = 0.5  # of two


class Scene:
    """A server and a cluster on it, and what can be seen of their work from outside."""

    def __init__(self, folder: Path, actors: int, scorers: int, real: bool) -> None:
        folder.mkdir()
        self._logs = folder / "logs"
        self.steps = Steps(folder / "run" / "metrics.jsonl")
        settings = job.prepare(folder, folder / "run", real)
        self._server = Server(folder / "b", 64)
        self.cluster = Cluster(
            settings, self._server.url, "recovery", self._logs, actors=actors, scorers=scorers, real=real
        )
        self.broker = Broker(self._server.url, "recovery", "watch")
        self._client = client_of(self._server.url)

    def produced(self, stage: str) -> int:
        """Groups that ever came into a stream."""
        return int(self._client.xinfo_stream(self.broker.key(stage))["entries-added"])

    def ready(self, name: str) -> bool:
        """Whether the process that has this place now has begun to work."""
        pid = f"-{self.cluster.workers[name].process.pid}-"
        return any(pid in consumer for consumer in self.broker.processes())

    def until(self, condition: Callable[[], bool]) -> float:
        """When it became true; whoever is gone meanwhile is started again."""
        deadline = time.monotonic() + STUCK_S
        while not condition():
            self.cluster.mend()
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing moved for {STUCK_S:.0f} s; logs are in {self._logs}")
            time.sleep(0.005)
        return time.monotonic()

    def flows(self) -> None:
        """Everybody works: two more steps."""
        steps = self.steps.look()
        self.until(lambda: all(self.ready(name) for name in self.cluster.workers) and self.steps.look() >= steps + 2)

    def kill(self, name: str) -> float:
        """When."""
        self.cluster.signal(name, signal.SIGKILL)
        self.cluster.workers[name].process.wait()
        return time.monotonic()

    def close(self) -> None:
        self.cluster.close()
        self._server.stop()


def worker_recovery(scene: Scene, name: str) -> tuple[float, float]:
    """(seconds from the kill to the next group, bound)."""
    scene.flows()
    killed = scene.kill(name)
    scene.cluster.mend()
    before = scene.produced(PRODUCES[name])
    begun = scene.until(lambda: scene.ready(name))
    done = scene.until(lambda: scene.produced(PRODUCES[name]) > before)
    return done - killed, (CLAIM_S + 3.0 if name == "scorer-0" else begun - killed + 2.0)


def learner_recovery(scene: Scene) -> tuple[float, float]:
    """(seconds from the kill to the next step, bound). It announces its policy when its checkpoint is loaded."""
    scene.flows()
    killed = scene.kill("learner")
    scene.cluster.mend()
    before, steps = scene.broker.policy(), scene.steps.look()

    def announced() -> bool:
        now = scene.broker.policy()
        return now is not None and before is not None and now.incarnation > before.incarnation

    begun = scene.until(announced)
    done = scene.until(lambda: scene.steps.look() > steps)
    return done - killed, begun - killed + 2.0


def rate_left(scene: Scene, name: str) -> float:
    """Groups in the time after one of two was killed, as a share of those in as much time before."""
    scene.flows()
    first = scene.produced(PRODUCES[name])
    time.sleep(RATE_S)
    scene.kill(name)
    second = scene.produced(PRODUCES[name])
    time.sleep(RATE_S)
    return (scene.produced(PRODUCES[name]) - second) / (second - first)


def measure(folder: Path, times: int, real: bool) -> dict[str, Any]:
    result: dict[str, Any] = {}
    with Bars(TextColumn("{task.fields[what]}")) as bar:
        task = bar.add_task("recoveries", total=5 * times, what="")
        scene = Scene(folder / "one", 1, 1, real)
        try:
            for name, recover in (
                ("scorer", lambda: worker_recovery(scene, "scorer-0")),
                ("actor", lambda: worker_recovery(scene, "actor-0")),
                ("learner", lambda: learner_recovery(scene)),
            ):
                found = []
                for _ in range(times):
                    found.append(recover())
                    bar.update(task, advance=1, what=name)
                result[name] = {
                    "median": round(median(seconds for seconds, _ in found), 2),
                    "worst": round(max(seconds for seconds, _ in found), 2),
                    "worst_of_bound": round(max(seconds / bound for seconds, bound in found), 2),
                }
        finally:
            scene.close()
        scene = Scene(folder / "two", 2, 2, real)
        try:
            for name in PRODUCES:
                left = []
                for _ in range(times):
                    left.append(rate_left(scene, name))
                    bar.update(task, advance=1, what=f"one of two, {name}")
                role = name.partition("-")[0]
                result[role] |= {"rate_left_median": round(median(left), 2), "rate_left_worst": round(min(left), 2)}
        finally:
            scene.close()
    return result


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.recovery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20, help="kills of each kind")
    parser.add_argument("--real-engine", action="store_true", help="vLLM in the actors; an actor takes 10 s to start")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder:
        result = measure(Path(folder), given.times, given.real_engine)
    print(json.dumps({"times": given.times, "claim_delay": CLAIM_S, **result}))
    late = any(role["worst_of_bound"] > 1 for role in result.values())
    return 1 if late or any(role.get("rate_left_median", 1) < SHARE_LEFT for role in result.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
