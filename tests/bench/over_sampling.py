"""What `learner.over_sampling` saves and what it biases: two short runs that allow no staleness, without and with it.

A group takes as long as its longest completion, and a batch without over-sampling as long as its slowest group. With
it the batch is the groups that come first, and the slow ones are dropped as stale: short completions are trained on
more often than they are sampled. The policy's completions here are from a task whose lengths differ.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.pipeline import CONFIG, STEADY, hero

SHARE, STEPS, COLD_START_S = 0.5, 40, 60
TARGET = 1.0


def run(base: Path = CONFIG) -> dict[str, Any]:
    """Row `over_sampling`: wall seconds of a step with it / without; the detail has the bias."""
    with tempfile.TemporaryDirectory(prefix="hero-bench-") as folder:
        root = Path(folder)
        hero("sft", str(base), f"--sft.out={root / 'policy'}", f"--sft.max_seconds={COLD_START_S}")
        without, over = (_measured(base, root, share) for share in (0.0, SHARE))
    ratio = over["step_s"] / without["step_s"]
    return {
        "name": "over_sampling",
        "ratio": round(ratio, 4),
        "target": TARGET,
        "holds": ratio <= TARGET,
        "detail": {"over_sampling": SHARE, "without": without, "with": over},
    }


def _measured(base: Path, root: Path, share: float) -> dict[str, Any]:
    """Seconds of a step; tokens and accuracy of the completions that were trained on and of those that were dropped."""
    folder = root / f"run-{share}"
    hero(
        "up",
        str(base),
        f"--model.policy={root / 'policy'}",
        f"--run.folder={folder}",
        f"--run.steps={STEPS}",
        "--reward.mode=verifier",
        "--reward_model.backend=none",
        "--learner.max_staleness=0",
        f"--learner.over_sampling={share}",
        "--eval.data=",
    )
    steady = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][STEADY]
    groups = [json.loads(line) for line in (folder / "rewards" / "rewards.jsonl").read_text().splitlines()]
    trained = [group for group in groups if group["outcome"] == "trained"]
    dropped = [group for group in groups if group["outcome"] == "dropped: stale"]
    return {
        "step_s": round((steady[-1]["time"] - steady[0]["time"]) / (len(steady) - 1), 3),
        "trained": _described(trained),
        "dropped": _described(dropped) if dropped else None,
    }


def _described(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over groups, each with the half-width of its 95 % interval."""
    completions = [group["completions"] for group in groups]
    figures = {
        "tokens": [statistics.mean(c["tokens"] for c in group) for group in completions],
        "longest_tokens": [max(c["tokens"] for c in group) for group in completions],
        "accuracy": [statistics.mean(c["status"] == "correct" for c in group) for group in completions],
    }
    return {"groups": len(groups)} | {
        name: [round(statistics.mean(values), 3), round(1.96 * statistics.stdev(values) / len(values) ** 0.5, 3)]
        for name, values in figures.items()
    }


if __name__ == "__main__":
    print(json.dumps(run(*map(Path, sys.argv[1:]))))
