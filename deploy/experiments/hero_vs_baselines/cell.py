"""One cell: `hero up` to the end, `hero eval` of its exports, and what results.json keeps of it.

OUT/cells/hero-hard-3/settings.json   as given
OUT/cells/hero-hard-3/run             run folder of `hero up`
OUT/cells/hero-hard-3/eval            of `hero eval`
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import config
from common.errors import DataError
from common.models import identity
from common.progress import Bars
from common.settings import Sections
from common.tasks import Problem
from deploy import recorded
from deploy.evaluation.figures import summary
from deploy.evaluation.rows import read_all
from deploy.experiments.hero_vs_baselines import groups, protocol
from deploy.experiments.hero_vs_baselines.hero import hero, keep
from deploy.experiments.hero_vs_baselines.protocol import Cell, Inputs
from deploy.judging import judged, sandbox_of
from deploy.show import console

SERIES_EVERY = 10
"""Steps in one point of a training curve."""


def run(cell: Cell, inputs: Inputs, out: Path, look: Callable[[int], object]) -> dict[str, Any]:
    """The result of a cell, run anew from its first step; `look` is told the steps done, as `hero.hero` has it.

    Raises ChildFailed when a part of it ends badly, DataError when its prompts are not those of the other arms.
    """
    started = time.monotonic()
    folder = (out / "cells" / cell.name).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    settings = protocol.settings(cell, inputs, folder / "run")
    file = keep(settings, folder / "settings.json")
    metrics = folder / "run" / "metrics.jsonl"
    hero(folder, "up", "up", file, look=lambda: look(_lines(metrics)))
    if (folder / "run" / "bad_lines.jsonl").is_file():
        raise DataError(
            f"{cell.name}: the gate cannot read some gold answers, so its prompts are not those of other arms"
        )
    policies = {"step-0": inputs.policy} | {f"step-{step}": _export(folder, step) for step in protocol.EVALUATED_AT[1:]}
    named = [f"{name}={path}" for name, path in policies.items()]
    done = protocol.EVALUATED_AT[-1]
    hero(folder, "eval", "eval", *named, "--config", file, "--out", folder / "eval", look=lambda: look(done))
    return result(cell, inputs, folder, time.monotonic() - started)


def result(cell: Cell, inputs: Inputs, folder: Path, seconds: float) -> dict[str, Any]:
    """From the folder of a finished cell."""
    settings = config.load(folder / "settings.json")
    accuracy = _accuracy(folder)
    own = protocol.tests_of(cell.regime)
    trained = _trained(settings)
    summed = json.loads((folder / "run" / "summary.json").read_text())
    arm = protocol.ARMS[cell.arm]
    return {
        "mode": cell.arm,
        "regime": cell.regime,
        "seed": cell.seed,
        "settings": arm.changes,
        "reward_model_labels": arm.labels,
        "accuracy": accuracy,
        "final": sum(accuracy[-1][test]["avg@8"] for test in own) / len(own),
        "training": groups.series(trained, SERIES_EVERY),
        "lessons": groups.lessons(trained),
        "policy": identity("policy", inputs.policy),
        "steps": summed["steps"],
        "groups_trained": summed["groups_trained"],
        "dropped": summed["drops"],
        "seconds": round(seconds),
    }


def _export(folder: Path, step: int) -> Path:
    return folder / "run" / "exports" / f"step-{step:08d}"


def _accuracy(folder: Path) -> list[dict[str, Any]]:
    """[{"step": 0, "easy": {"greedy": 0.5, "avg@8": 0.4}, "hard": {...}}, ...] by the tasks' own scorers."""
    models = summary(read_all(folder / "eval"), ())["models"]
    return [
        {"step": step}
        | {
            test: {"greedy": figures["accuracy"]["greedy"]["value"], "avg@8": figures["accuracy"]["pass@1"]["value"]}
            for test, figures in models[f"step-{step}"]["sets"].items()
        }
        for step in protocol.EVALUATED_AT
    ]


def _trained(settings: Sections) -> list[groups.Group]:
    """The groups that were trained on, judged by the tasks' own scorers."""
    records = [line for line in recorded.groups(settings.run.folder) if line["outcome"] == "trained"]
    asked = [
        (Problem(r["question"], r["gold"], None, r["meta"]), one["text"]) for r in records for one in r["completions"]
    ]
    with sandbox_of(settings, "task") as sandbox, Bars(console=console, disable=True) as bars:
        said = judged(sandbox, [problem for problem, _ in asked], [text for _, text in asked], bars, "")
    truth = iter(said)
    return [
        groups.group(r, [verdict.correct for verdict in itertools.islice(truth, len(r["completions"]))])
        for r in records
    ]


def _lines(file: Path) -> int:
    """Of a file that is being written: the last one may be torn."""
    return file.read_bytes().count(b"\n") if file.is_file() else 0
