"""Imports never walk back, and what must stay light loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {"torch", "vllm", "transformers", "deepspeed"}
NETWORK = {"redis"}
LIGHT = [
    "common.config", "common.errors", "common.leases", "common.lifecycle", "common.logs", "common.models",
    "common.generated", "common.problems", "common.schema", "common.server", "common.settings", "common.streams",
    "common.tasks", "common.shadow", "common.tracing", "common.weights", "actors.worker", "scorer.shadow",
    "scorer.worker", "learner.curves",
    "deploy.children", "deploy.cli", "deploy.doctor.command", "deploy.evaluation.command", "deploy.evaluation.sample",
    "deploy.queue", "deploy.report.command", "deploy.run_folder", "deploy.shadow", "deploy.show",
]  # fmt: skip
PURE = [
    "scorer.hero", "scorer.rewards", "learner.advantage", "learner.ledger", "learner.tickets", "learner.groups",
    "learner.metrics", "learner.flops", "learner.throughput", "learner.channels", "learner.normalize",
    "learner.reliability", "learner.round", "learner.points", "learner.ratio_bins", "common.accuracy", "common.columns",
    "common.auroc", "common.lanes",
    "common.scores", "common.sigma",
    "learner.footprint", "common.fitness", "common.schema", "common.settings", "common.weights",
]  # fmt: skip


def loaded_by(module: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after importing a module."""
    code = f"import {module}, sys, json; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_contracts_hold() -> None:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout and "0 kept" not in done.stdout


def test_what_every_process_shares_loads_nothing_heavy() -> None:
    assert loaded_by(", ".join(LIGHT)) & HEAVY == set()


def test_the_pure_parts_need_no_server_either() -> None:
    assert loaded_by(", ".join(PURE)) & (HEAVY | NETWORK) == set()


def test_the_look_itself_sees_a_heavy_import() -> None:
    assert "redis" in loaded_by("common.streams")
