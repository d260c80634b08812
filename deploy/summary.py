"""summary.json: what a finished run came to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.settings import Sections


def metrics_lines(metrics: Path) -> list[dict[str, Any]]:
    """One line per step; of a step that was repeated after a resume, the last."""
    by_step = {line["step"]: line for line in map(json.loads, metrics.read_text().splitlines())}
    return [by_step[step] for step in sorted(by_step)]


def summarize(
    settings: Sections,
    run_id: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    training_s: float,
    worst_difference: float,
) -> dict[str, Any]:
    """summary.json of a finished run."""
    lines = metrics_lines(settings.run.folder / "metrics.jsonl")
    seconds = {}
    for phase, file in (
        ("cold_start", Path(settings.model.policy) / "sft.json"),
        ("reward_model", Path(settings.reward_model.model or "-") / "rm.json"),
    ):
        if file.is_file():
            seconds[phase] = json.loads(file.read_text())["seconds_in_all"]
    if before:
        seconds["evaluation_before"] = before["seconds"]
    seconds["training"] = training_s
    if after:
        seconds["evaluation_after"] = after["seconds"]
    span = max(lines[-1]["time"] - lines[0]["time"], 1e-9)

    def accuracy(result: dict[str, Any] | None) -> dict[str, float] | None:
        return {kind: result[kind] for kind in ("greedy", "sampled")} if result else None

    return {
        "run": run_id,
        "reward_mode": settings.reward.mode,
        "seed": settings.run.seed,
        "accuracy_before": accuracy(before),
        "accuracy_after": accuracy(after),
        "held_out_problems": settings.eval.problems,
        "by_task": {"before": before["by_task"], "after": after["by_task"]} if before and after else None,
        "steps": lines[-1]["step"],
        "groups_trained": lines[-1]["tickets"]["trained"],
        "tickets": lines[-1]["tickets"],
        "drops": lines[-1]["drops"],
        "seconds": seconds,
        "tokens_per_second": sum(line["sampled_tokens"] for line in lines[1:]) / span,
        "steps_per_minute": 60 * (len(lines) - 1) / span,
        "max_logprob_difference": worst_difference,
        "staleness_max": max(line["staleness_max"] for line in lines),
    }
