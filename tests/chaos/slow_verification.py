"""`python -m tests.chaos.slow_verification`: verification gets ten times slower for a minute, and scorers come and go.

Groups arrive at a steady pace whatever becomes of them, real scorers take them, and `deploy.scaling` starts and
retires these as `hero up --autoscale` does. Afterwards every group has been scored once, and the formulas of KEDA and
Kubernetes, written here once more, say of every recorded look what the scaler did. The last line of standard output is
JSON; exit code 1 when a group was lost or repeated, the lag did not recover, or a look differs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import config
from common.progress import Bars
from common.server import LocalServer
from common.settings import Sections
from common.streams import Broker
from deploy.children import Children
from deploy.scaling import RECORD, Scaling
from tests.chaos.slow_scorer import SECONDS_EACH
from tests.make import rollout, ticket

COMPLETIONS = 4
FAST_S, SLOW_S = 0.025, 0.25
"""Of verification, for each completion: a group takes 0.1 s, then 1 s."""
GROUPS_PER_S = 4.0
PHASES = ((20.0, FAST_S), (60.0, SLOW_S), (60.0, FAST_S))
END_S = 60.0
SETTINGS = Sections.model_validate(
    {
        "reward": {"mode": "verifier"},
        "scorer": {"count": 1, "most": 8, "lag_each": 8, "pending_each": 4, "window_s": 10, "batch_groups": 2},
        "verifier": {"children": 1, "kind": "math"},
        "broker": {"claim_after_ms": 10_000},
    }
)


class SlowScorers(Children):
    module = "tests.chaos.slow_scorer"


class Traffic(threading.Thread):
    """Plays learner and actors: issues, samples and closes, at its own pace."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(daemon=True)
        self._broker = broker
        self._incarnation = broker.take_over()
        self.ended, self.issued = threading.Event(), 0
        self.scored: Counter[int] = Counter()

    def run(self) -> None:
        started = time.monotonic()
        while not (self.ended.is_set() and len(self.scored) == self.issued):
            due = self.issued if self.ended.is_set() else int((time.monotonic() - started) * GROUPS_PER_S)
            new = range(self.issued, due)
            order = [ticket(self._broker.run, n, completions=COMPLETIONS, incarnation=self._incarnation) for n in new]
            self._broker.issue_together(order)
            self.issued = max(due, self.issued)
            for one in self._broker.read("tickets", 100, 0):
                self._broker.hand_over(one, rollout(one.ticket))
            came = self._broker.read("scored", 100, 50)
            self.scored.update(one.ticket.id for one in came)
            self._broker.close(self._incarnation, [(d.ticket.id, d.ticket.attempt, d.entry) for d in came])


def run(out: Path) -> dict[str, Any]:
    """What was recorded, and what it came to."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RECORD).unlink(missing_ok=True)
    pace, settings = out / "seconds_each", out / "settings.json"
    settings.write_text(config.dump(SETTINGS))
    with LocalServer(out / "broker", 256) as server:
        broker = Broker(server.url, "slow", "learner")
        broker.check()
        children = SlowScorers(out / "logs", {"REDIS_URL": server.url, SECONDS_EACH: str(pace)})

        def start(name: str) -> None:
            children.start(name, ["scorer", str(settings), "--run.id", broker.run], 1)

        pace.write_text(str(FAST_S))
        start("scorer-0")
        watching = Broker(server.url, "slow", "up")
        scaling = Scaling(SETTINGS.scorer, watching, children, start, out)
        traffic = Traffic(broker)
        traffic.start()
        try:
            with Bars() as bars:
                shown = bars.add_task("traffic", total=int(sum(seconds for seconds, _ in PHASES)))
                for seconds, each in PHASES:
                    pace.write_text(str(each))
                    ends = time.monotonic() + seconds
                    while time.monotonic() < ends:
                        children.restart_dead(lambda: False)
                        scaling.look()
                        time.sleep(0.25)
                    bars.advance(shown, int(seconds))
            traffic.ended.set()
            traffic.join(END_S)
        finally:
            children.stop()
    looks = [json.loads(line) for line in (out / RECORD).open()]
    return found(looks, traffic) | {"picture": str(draw(looks, out / "autoscale.png"))}


def found(looks: Sequence[dict[str, Any]], traffic: Traffic) -> dict[str, Any]:
    scorers = [look["scorers"] for look in looks]
    return {
        "groups": traffic.issued,
        "lost": traffic.issued - len(traffic.scored),
        "repeated": sum(count - 1 for count in traffic.scored.values()),
        "most_scorers": max(scorers),
        "last_scorers": scorers[-1],
        "most_lag": max(look["lag"] for look in looks),
        "last_lag": looks[-1]["lag"],
        "looks": len(looks),
        "looks_that_differ": sum(now != then for now, then in zip(scorers, by_keda(looks), strict=True)),
    }


def by_keda(looks: Sequence[dict[str, Any]]) -> list[int]:
    """Replicas as KEDA and the HPA would have them, from their documentation and not from `deploy.autoscale`.

    desired = ceil(replicas * (metric / replicas) / threshold), not changed within a tenth of it, the largest of all
    triggers; scaled up at once, down to the largest recommendation of the stabilization window.
    """
    options, replicas, told = SETTINGS.scorer, SETTINGS.scorer.count, []
    recommended: list[tuple[float, int]] = []
    for look in looks:
        wishes = []
        for metric, threshold in ((look["lag"], options.lag_each), (look["pending"], options.pending_each)):
            ratio = metric / replicas / threshold
            wishes.append(replicas if 0.9 <= ratio <= 1.1 else math.ceil(metric / threshold))
        recommended.append((look["time"], max(wishes)))
        lately = [wish for time, wish in recommended if time >= look["time"] - options.window_s]
        replicas = recommended[-1][1] if recommended[-1][1] > replicas else min(replicas, max(lately))
        replicas = min(max(replicas, options.count), options.at_most)
        told.append(replicas)
    return told


def draw(looks: Sequence[dict[str, Any]], file: Path) -> Path:
    """Lag, and scorers, over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    seconds = [look["time"] - looks[0]["time"] for look in looks]
    figure, axes = plt.subplots(2, 1, figsize=(7, 4), sharex=True, layout="constrained")
    for axis, key in zip(axes, ("lag", "scorers"), strict=True):
        axis.plot(seconds, [look[key] for look in looks], drawstyle="steps-post")
        axis.axvspan(PHASES[0][0], PHASES[0][0] + PHASES[1][0], alpha=0.15, color="tab:red")
        axis.set(ylabel=key)
        axis.grid(alpha=0.3)
    axes[0].set_title("verification ten times slower in the red part")
    axes[1].set_xlabel("seconds")
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.slow_verification", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/slow-verification"))
    came = run(parser.parse_args(arguments).out)
    print(json.dumps(came))
    wrong = came["lost"] or came["repeated"] or came["looks_that_differ"] or came["most_scorers"] < 4
    return int(bool(wrong) or came["last_scorers"] != 1 or came["last_lag"] > SETTINGS.scorer.lag_each)


if __name__ == "__main__":
    sys.exit(main())
