"""summary.json: what a finished run came to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.settings import Sections
from learner.json_lines import lines_by_step


def summarize(
    settings: Sections,
    run_id: str,
    evaluation: dict[str, Any] | None,
    training_s: float,
    worst_difference: float,
) -> dict[str, Any]:
    """summary.json of a finished run.

    evaluation: of `deploy.evaluation.figures.summary`, the models `before` and `after`; None without held-out sets.
    """
    models = evaluation["models"] if evaluation else {}
    lines = lines_by_step(settings.run.folder / "metrics.jsonl")
    seconds = {}
    for phase, file in (
        ("cold_start", Path(settings.model.policy) / "sft.json"),
        ("reward_model", Path(settings.reward_model.model or "-") / "rm.json"),
    ):
        if file.is_file():
            seconds[phase] = json.loads(file.read_text())["seconds_in_all"]
    if "before" in models:
        seconds["evaluation_before"] = models["before"]["seconds"]
    seconds["training"] = training_s
    if "after" in models:
        seconds["evaluation_after"] = models["after"]["seconds"]
    span = max(lines[-1]["time"] - lines[0]["time"], 1e-9)

    return {
        "run": run_id,
        "reward_mode": settings.reward.mode,
        "seed": settings.run.seed,
        "accuracy_before": _accuracy(models.get("before")),
        "accuracy_after": _accuracy(models.get("after")),
        "accuracy_gain": _gain(evaluation["comparisons"]) if evaluation else None,
        "held_out_problems": sum(figures["problems"] for figures in models["after"]["sets"].values()) if models else 0,
        "evaluations": [line["eval"] for line in lines_by_step(settings.run.folder / "eval.jsonl")],
        "by_task": {moment: _by_task(model) for moment, model in models.items()},
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


_NAMES = {"greedy": "greedy", "pass@1": "sampled"}


def _accuracy(model: dict[str, Any] | None) -> dict[str, float] | None:
    """Over the held-out sets, each counting the same."""
    return {name: model["mean"][figure]["value"] for figure, name in _NAMES.items()} if model else None


def _gain(comparisons: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """After less before over the held-out sets, with interval and p-value; the mean of several sets comes last."""
    kept = ("difference", "low", "high", "p")
    return {_NAMES[line["figure"]]: {key: line[key] for key in kept} for line in comparisons}


def _by_task(model: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By family of reasoning-gym, or else by set."""
    found: dict[str, dict[str, float]] = {}
    for set_name, figures in model["sets"].items():
        whole = {name: found["value"] for name, found in figures["accuracy"].items()}
        for task, values in (figures["by_task"] or {set_name: whole}).items():
            found[task] = {name: values[figure] for figure, name in _NAMES.items()}
    return found
