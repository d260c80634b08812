"""What optimizer steps change in SmolLM2-135M, by the learning rate: bytes that a broker is given, and training's wait.

Real runs: `hero up` on one-digit sums, HERO with the gold answer's likelihood under the same model, actors in bfloat16
that fetch from the broker. The learner's log has what a version took there, and the seconds that copying out took.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.lifecycle import computing_environment
from deploy.smollm2 import convert

RATES = (1e-6, 1e-5, 1e-4)
STEPS = 5
BYTES_TARGET, BLOCKED_TARGET = 0.05, 0.02
RUN_S = 1200.0

CONFIG = """
[run]
name = "weight-changes"
folder = "{folder}/{rate}"
steps = {steps}
[broker]
memory_mb = 2048
[model]
policy = "{folder}/policy"
[data]
train = "reasoning-gym"
system_prompt = "Solve the problem step by step and end with the number in \\\\boxed{{}}."
max_prompt_tokens = 160
families = {{chain_sum = {{min_terms = 2, max_terms = 3, min_digits = 1, max_digits = 1}}}}
[sampling]
completions = 8
max_tokens = 96
[actor]
groups_in_flight = 8
max_model_len = 320
kv_cache_gib = 1.0
dtype = "bfloat16"
weights_from = "broker"
max_logprob_difference = 3.0  # bfloat16 against float32: 1.4 on improbable tokens
[reward_model]
backend = "likelihood"
model = "{folder}/policy"
max_length = 512
batch_tokens = 2048
[learner]
groups_per_step = 4
lr = {rate}
micro_batch_tokens = 2048
checkpoint_every_steps = 1000
[eval]
around_training = false
"""


def run() -> list[dict[str, Any]]:
    """A row for each learning rate, and one for training's wait."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        convert(folder / "policy")
        runs = {rate: _lines(folder, rate) for rate in RATES}
    rows = []
    for rate, lines in runs.items():
        whole, *changes = _carried(lines)
        share = statistics.mean(changes) / whole
        rows.append(
            {
                "name": f"weight_changes_{rate:g}",
                "ratio": round(share, 4),
                "target": BYTES_TARGET if rate == min(RATES) else 1.0,
                "holds": share <= (BYTES_TARGET if rate == min(RATES) else 1.0),
                "detail": {"whole_mb": round(whole, 1), "changes_mb": [round(one, 2) for one in changes]},
            }
        )
    seconds = [line["seconds"] for lines in runs.values() for line in lines]
    blocked = statistics.median(one["publish"] / one["step"] for one in seconds)
    detail = {name: [round(one[name], 3) for one in seconds] for name in ("publish", "step")}
    holds = blocked <= BLOCKED_TARGET
    row = {"name": "publication_blocks", "ratio": round(blocked, 4), "target": BLOCKED_TARGET, "holds": holds}
    return [*rows, row | {"detail": detail}]


def _lines(folder: Path, rate: float) -> list[dict[str, Any]]:
    """The learner's log of a run at that rate."""
    file = folder / f"{rate}.toml"
    file.write_text(CONFIG.format(folder=folder, rate=rate, steps=STEPS))
    command = [sys.executable, "-m", "deploy.cli", "up", str(file)]
    subprocess.run(command, check=True, timeout=RUN_S, env=computing_environment(1), stdout=sys.stderr)
    return [json.loads(line) for line in (folder / str(rate) / "metrics.jsonl").open()]


def _carried(lines: list[dict[str, Any]]) -> list[float]:
    """MB of each version that went to the broker, the first one whole; a version that was left out is in the next."""
    found = {line["carried_step"]: line["carried_mb"] for line in lines if "carried_step" in line}
    return [found[step] for step in sorted(found)]
