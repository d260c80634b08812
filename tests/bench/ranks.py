"""One learner rank against two on the same batch: wall time of a step, and CPU-seconds over all ranks.

`python -m tests.bench.ranks SIZE FOLDER` is one rank, under a launcher or alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from common.settings import Sections
from deploy.processes import Processes
from learner import distributed
from learner.policy import Policy, PolicyOptions, StepResult
from learner.ranks import joined
from learner.team import Team, follow
from tests.bench.learner_step import LR, SMALL, SMOLLM2, TEMPERATURE, random_sequences
from tests.until import until

WALL_TARGET = 1.2  # two ranks on two shared cores; with free ones a step takes less than with one
DEADLINE_S = 1200.0
SIZES: dict[str, dict[str, Any]] = {
    "small": {"config": SMALL, "sequences": (256, 40, 60), "steps": 12, "micro_batch_tokens": 4096},
    "smollm2": {"config": SMOLLM2, "sequences": (8, 60, 68), "steps": 4, "micro_batch_tokens": 512},
}


def run() -> list[dict[str, Any]]:
    """Rows `ranks_small` and `ranks_smollm2`: `ratio` is wall time with two ranks / with one, medians over steps."""
    return [_row(size) for size in SIZES]


def _row(size: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(SIZES[size]["config"]).save_pretrained(folder / "model")
        one, two = (_measured(size, folder, ranks) for ranks in (1, 2))
    wall = two["wall_s"] / one["wall_s"]
    return {
        "name": f"ranks_{size}",
        "ratio": round(wall, 4),
        "target": WALL_TARGET,
        "holds": wall <= WALL_TARGET,
        "detail": {"one": one, "two": two, "cpu_ratio": round(two["cpu_s"] / one["cpu_s"], 4)},
    }


def _measured(size: str, folder: Path, ranks: int) -> dict[str, float]:
    """Medians over the steps of a job of so many ranks."""
    logs = [folder / f"{ranks}-{rank}.log" for rank in range(ranks)]
    job = Processes([sys.executable, "-m", "tests.bench.ranks", size, str(folder)], 1, None, logs)
    try:
        until(lambda: job.poll() is not None, f"end of {ranks} rank(s)", DEADLINE_S)
        if job.poll():
            raise RuntimeError(logs[job.blame()].read_text()[-3000:])
    finally:
        job.kill()
    found = [json.loads((folder / f"{ranks}-{rank}.json").read_text()) for rank in range(ranks)]
    cpu = [sum(of_step) for of_step in zip(*(steps["cpu"] for steps in found), strict=True)]
    return {"wall_s": round(statistics.median(found[0]["wall"]), 4), "cpu_s": round(statistics.median(cpu), 4)}


class _Timed(Policy):
    """Notes wall and CPU time of each step of this rank."""

    def __init__(self, model: Path, options: PolicyOptions) -> None:
        super().__init__(model, options)
        self.times: dict[str, list[float]] = {"wall": [], "cpu": []}

    def step(self, *arguments: Any) -> StepResult:
        wall, cpu = time.perf_counter(), time.process_time()
        result = super().step(*arguments)
        self.times["wall"].append(time.perf_counter() - wall)
        self.times["cpu"].append(time.process_time() - cpu)
        return result


def main(size: str, folder: Path) -> int:
    torch.set_num_threads(1)
    _, count = distributed.launched() or (0, 1)
    chosen = SIZES[size]
    settings = Sections.model_validate({"model": {"policy": str(folder / "model")}, "learner": {"ranks": count}})
    with joined(settings) as ranks:
        policy = _Timed(folder / "model", PolicyOptions(lr=LR, micro_batch_tokens=chosen["micro_batch_tokens"]))
        if ranks.rank:
            follow(policy, ranks)
        else:
            batch = random_sequences(*chosen["sequences"], chosen["config"].vocab_size)
            team = Team(policy, ranks)
            for _ in range(chosen["steps"] + 1):
                team.step(batch, TEMPERATURE)
    warm = {name: values[1:] for name, values in policy.times.items()}  # the first step allocates
    (folder / f"{count}-{ranks.rank}.json").write_text(json.dumps(warm))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2])))
