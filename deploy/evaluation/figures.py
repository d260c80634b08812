"""From results to figures: accuracies with intervals over problems, and shares of completions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from common import accuracy
from common.accuracy import Estimate
from deploy.evaluation.paired import COMPARED, compared
from deploy.evaluation.rows import Result, right


def summary(results: Sequence[Result], k: Sequence[int]) -> dict[str, Any]:
    """{"models": {name: {"model", "seconds", "sets": {set: figures}, "mean": accuracies}}, "comparisons": [...]}.

    k: of pass@k; one above the samples of a result is left out there.
    """
    by_model: dict[str, dict[str, Result]] = {}
    for result in results:
        by_model.setdefault(result.model, {})[result.set] = result
    models = {}
    for name, own in by_model.items():
        found = {set_name: of_result(result, k) for set_name, result in own.items()}
        first = next(iter(own.values()))
        models[name] = {
            "model": first.folder,
            "identity": first.identity,
            "seconds": sum(result.seconds for result in own.values()),
            "sets": found,
            "mean": _mean([figures["accuracy"] for figures in found.values()]),
        }
    return {"models": models, "comparisons": compared(by_model)}


def of_result(result: Result, k: Sequence[int]) -> dict[str, Any]:
    """The figures of one model on one set; an accuracy is {"value", "low", "high"}."""
    n, problems = result.asked.samples, result.problems
    rights = [sum(map(right, row["samples"])) for row in problems]
    samples = [one for row in problems for one in row["samples"]]
    accuracies = {
        "greedy": accuracy.mean([right(row["greedy"]) for row in problems], 1),
        "pass@1": accuracy.mean([c / n for c in rights], n),
    }
    for size in sorted(size for size in set(k) if 1 < size <= n):
        accuracies[f"pass@{size}"] = accuracy.mean([accuracy.pass_at_k(n, c, size) for c in rights], n)
    if n > 1:
        accuracies[f"maj@{n}"] = accuracy.mean([_vote(row["samples"]) for row in problems], n)
    return {
        "problems": len(problems),
        "samples": n,
        "seconds": result.seconds,
        "accuracy": {name: dataclasses.asdict(found) for name, found in accuracies.items()},
        "statuses": {
            "greedy": dict(Counter(row["greedy"]["status"] for row in problems if row["greedy"])),
            "samples": dict(Counter(one["status"] for one in samples)),
        },
        "prompts_too_long": sum(row["greedy"] is None for row in problems),
        "completions": len(samples),
        "truncated": _mean_of([one["finish"] == "length" for one in samples]),
        "tokens_mean": _mean_of([one["tokens"] for one in samples]),
        "by_task": _by_task(problems, [c / n for c in rights]),
    }


def _mean(accuracies: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """What every set has, each set counting the same."""
    names = [name for name in accuracies[0] if all(name in others for others in accuracies)]
    return {
        name: dataclasses.asdict(accuracy.macro([Estimate(**others[name]) for others in accuracies])) for name in names
    }


def _vote(samples: Sequence[Mapping[str, Any]]) -> float:
    ballots = Counter(one["vote"] for one in samples if one["vote"] is not None)
    return accuracy.majority(ballots.pop(0, 0), list(ballots.values()))


def _by_task(problems: Sequence[Mapping[str, Any]], passed: Sequence[float]) -> dict[str, dict[str, float]]:
    """greedy and pass@1 for each family of a reasoning-gym set."""
    tasks: dict[str, list[tuple[float, float]]] = {}
    for row, share in zip(problems, passed, strict=True):
        if row["task"]:
            tasks.setdefault(row["task"], []).append((right(row["greedy"]), share))
    return {
        task: {name: sum(column) / len(column) for name, column in zip(COMPARED, zip(*own, strict=True), strict=True)}
        for task, own in tasks.items()
    }


def _mean_of(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return sum(values) / len(values) if values else None
