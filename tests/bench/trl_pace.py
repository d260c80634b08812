"""The two sides of `tests.bench.trl_loop`, each a run and its pace."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import config
from tests.bench.pipeline import ROOT, hero
from tests.bench.processes import Watch
from tests.bench.trl_side import STEPS_FILE, Shape

DEADLINE_S = 1800


@dataclass(frozen=True)
class Case:
    """One row."""

    name: str
    config: Path
    flags: tuple[str, ...]
    """Of our run, beside the config file; HERO's run has them too."""
    steps: int
    steady: slice
    """Steps that count, on both sides: without the start, and our end where no new tickets are issued."""
    shape: Shape
    """TRL's fastest of those that were tried, see there."""


@dataclass(frozen=True)
class Pace:
    """Of one side over its steady steps."""

    completions_per_s: float
    step_s: float
    step_s_quartiles: list[float]
    cpu_s_per_step: dict[str, float]
    """By process."""
    tokens: float
    """Of a completion, mean."""
    accuracy: float
    """Of the completions that were trained on."""
    cores_taken_by_others: float


def ours(case: Case, folder: Path, flags: Sequence[str], steps: int | None = None) -> Pace:
    """`hero up` into this folder."""
    with Watch(os.getpid()) as watch:
        length = f"--run.steps={steps or case.steps}"
        hero("up", str(case.config), *case.flags, *flags, f"--run.folder={folder}", length)
    return _pace(case, folder, lines(folder / "metrics.jsonl"), watch)


def trls(case: Case, run_folder: Path, out: Path, steps: int, seconds: float) -> Pace:
    """TRL's trainer on the settings of that run, in a process of its own."""
    shape = case.shape
    command = [sys.executable, "-m", "tests.bench.trl_side", str(run_folder), str(out)]
    command += [f"--steps={steps}", f"--seconds={seconds}", f"--threads={shape.threads}"]
    command += [f"--micro-batches={shape.micro_batches}", f"--children={shape.children}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(shape.threads), "PYTHONPATH": str(ROOT)}
    with Watch(os.getpid()) as watch:
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment, cwd=ROOT, timeout=DEADLINE_S)
    return _pace(case, run_folder, lines(out / STEPS_FILE)[:steps], watch)


def _pace(case: Case, run_folder: Path, steps: list[dict[str, Any]], watch: Watch) -> Pace:
    settings = config.from_dump((run_folder / "settings.json").read_text())
    steady = steps[case.steady]
    completions = settings.learner.groups_per_step * settings.sampling.completions
    times = [line["time"] for line in steady]
    each_s = [later - earlier for earlier, later in pairwise(times)]
    step_s = statistics.mean(each_s)
    window = times[0], times[-1]
    return Pace(
        completions_per_s=round(completions / step_s, 2),
        step_s=round(step_s, 3),
        step_s_quartiles=[round(seconds, 3) for seconds in statistics.quantiles(each_s, n=4)],
        cpu_s_per_step={name: round(share * step_s, 3) for name, share in watch.cpu_seconds(*window).items()},
        tokens=round(statistics.mean(line["completion_tokens_mean"] for line in steady), 2),
        accuracy=round(statistics.mean(line["accuracy"] for line in steady), 4),
        cores_taken_by_others=round(watch.taken_by_others(*window), 3),
    )


def lines(file: Path) -> list[dict[str, Any]]:
    """Of a file with a JSON object a line."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
