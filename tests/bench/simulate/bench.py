"""The simulation against the real system on this machine, and how long it takes for a thousand actors."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import config
from common.settings import Sections
from learner.json_lines import lines_by_step
from tests.bench import pipeline
from tests.bench.processes import Watch
from tests.bench.simulate import cost
from tests.bench.simulate.inputs import Plant
from tests.bench.simulate.result import Result, steady
from tests.bench.simulate.run import simulate
from tests.bench.stage_times.groups import last_groups, plant_of, work_of
from tests.bench.stage_times.measure import measure

STEP_TARGET = 1.25
SECONDS_TARGET = 120.0
LARGE = Plant(1000, 100, 500, groups_in_flight=8, groups_per_step=4000)
LARGE_STEPS = 100


def run() -> list[dict[str, Any]]:
    """Rows `simulated_step` and `simulated_1000_actors`. SIMULATE_RUN names a run's folder, else one is made."""
    if folder := os.environ.get("SIMULATE_RUN"):
        settings = config.from_dump((Path(folder) / "settings.json").read_text())
        return [_step(settings, None), _large()]
    with tempfile.TemporaryDirectory(prefix="hero-bench-") as made:
        watch = Watch(os.getpid())
        with watch:
            settings = pipeline._train(pipeline.CONFIG, Path(made))
        return [_step(settings, watch), _large()]


def _step(settings: Sections, watch: Watch | None) -> dict[str, Any]:
    """Wall time of a step as simulated from stage times / as it was; the larger over the smaller is the ratio."""
    learner = settings.learner
    lines = lines_by_step(settings.run.folder / "metrics.jsonl")
    lines = lines[steady(len(lines), learner.max_staleness)]
    step_s = (lines[-1]["time"] - lines[0]["time"]) / (len(lines) - 1)
    groups = last_groups(settings)
    times, work = measure(settings, groups), work_of(settings, groups)
    cores = len(os.sched_getaffinity(0)) - settings.actor.count * settings.actor.threads
    if not settings.actor.own_cores or cores < 1:
        print("actors have no cores of their own in this run: the simulation takes them to", file=sys.stderr)
    found = simulate(times, work, replace(plant_of(settings), shared_cores=max(1, cores)), steps=len(lines) + 20)
    counts = lines[-1]["tickets"]
    ended = counts["trained"] + counts["dropped"]
    ratio = found.step_s / step_s
    return {
        "name": "simulated_step",
        "ratio": round(max(ratio, 1 / ratio), 4),
        "target": STEP_TARGET,
        "holds": max(ratio, 1 / ratio) <= STEP_TARGET,
        "detail": {
            "step_s": {"simulated": round(found.step_s, 4), "measured": round(step_s, 4)},
            "staleness_mean": {
                "simulated": round(found.staleness_mean, 2),
                "measured": round(statistics.mean(line["staleness_mean"] for line in lines), 2),
            },
            "dropped_share": {
                "simulated": round(found.dropped_share, 3),
                "measured": round(counts["dropped"] / ended, 3),
            },
            "learner_share": {"simulated": round(found.learner, 2), "measured": _training_share(lines, step_s)},
            "times": {name: float(f"{value:.3g}") for name, value in vars(times).items()},
            "cores_taken_by_others": _others(watch, lines),
        },
    }


def _training_share(lines: list[dict[str, Any]], step_s: float) -> float:
    return float(round(statistics.mean(line["seconds"]["step"] for line in lines) / step_s, 2))


def _others(watch: Watch | None, lines: list[dict[str, Any]]) -> float | None:
    return round(watch.taken_by_others(lines[0]["time"], lines[-1]["time"]), 3) if watch else None


def _large() -> dict[str, Any]:
    """CPU-seconds to simulate a thousand actors for a hundred steps / two minutes."""
    job, given = cost.Job(groups_per_step=LARGE.groups_per_step), cost.Assumptions()
    begun = time.process_time()
    found: Result = simulate(cost.predict(job, 1, given), job.work, LARGE, LARGE_STEPS)
    seconds = time.process_time() - begun
    return {
        "name": "simulated_1000_actors",
        "ratio": round(seconds / SECONDS_TARGET, 3),
        "target": 1.0,
        "holds": seconds <= SECONDS_TARGET,
        "detail": {
            "cpu_s": round(seconds, 1),
            "groups": LARGE_STEPS * LARGE.groups_per_step,
            "tickets_in_flight": round(found.in_flight_mean),
            "PREDICTED_step_s": round(found.step_s, 1),
            "staleness": {step: round(share, 4) for step, share in found.staleness.items()},
            "dropped_share": round(found.dropped_share, 4),
        },
    }
