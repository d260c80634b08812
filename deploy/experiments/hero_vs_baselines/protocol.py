"""What is compared, as data: regimes, arms, seeds, and the settings of every cell. README.md says why."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

BASE = Path(__file__).with_name("base.toml")
SEEDS = (1, 2, 3, 4, 5)
EVALUATED_AT = (0, 40, 80, 120)
"""Steps after which a policy is evaluated; at 0 it is the cold-started one."""

CRITIC_LAYERS = 4
CRITIC = {"sft": {"epochs": 6, "batch_tokens": 1024, "final_lr_fraction": 0.0}}
"""The reward models' backbone: twice the policy's depth, cold-started on the same solutions to the end."""

Settings = dict[str, Any]
Labels = Literal["task", "gate"]
Families = dict[str, dict[str, Any]]

EASY: Families = {
    "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 2, "max_digits": 2},
    "decimal_chain_sum": {
        "min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1,
        "min_decimal_places": 1, "max_decimal_places": 1,
    },
}  # fmt: skip
HARD: Families = {
    "time_intervals": {"task_types": ["time"]},
    "complex_arithmetic": {
        "min_real": 0, "max_real": 99, "min_imag": 0, "max_imag": 99,
        "operations": ["+", "-"], "operations_weights": [0.5, 0.5],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Regime:
    """Problems that are trained on, and alpha = beta for them (the paper: 0.05 easy, 0.1 mixed and hard)."""

    families: Families
    width: float


REGIMES = {"easy": Regime(EASY, 0.05), "hard": Regime(HARD, 0.1), "mixed": Regime(EASY | HARD, 0.1)}
TESTS = {"easy": EASY, "hard": HARD}
"""Held-out sets; every policy is evaluated on both."""


@dataclass(frozen=True)
class Arm:
    """One way to reward: what it changes, by section and key, and whose labels its reward model learnt from."""

    changes: Mapping[str, Mapping[str, Any]]
    labels: Labels | None = "task"


def _hero(**changes: Mapping[str, Any]) -> Arm:
    return Arm({**changes, "reward": {"mode": "hero", **changes.get("reward", {})}})


MAIN = {
    "verifier": Arm({"reward": {"mode": "verifier"}}, labels=None),
    "rm": Arm({"reward": {"mode": "rm"}}),
    "blend": Arm({"reward": {"mode": "blend", "blend_weight": 0.5}}),
    "hero": _hero(),
}
FURTHER = {
    "hero_gate_rm": Arm({"reward": {"mode": "hero"}}, labels="gate"),
    "oracle": Arm({"reward": {"mode": "verifier"}, "verifier": {"kind": "task"}}, labels=None),
}
ABLATIONS = {
    "weighting_off": _hero(reward={"weighting": "off"}),
    "weighting_scale_free": _hero(reward={"weighting": "scale_free"}),
    "width_0.05": _hero(reward={"alpha": 0.05, "beta": 0.05}),
    "width_0.1": _hero(reward={"alpha": 0.1, "beta": 0.1}),
    "width_0.2": _hero(reward={"alpha": 0.2, "beta": 0.2}),
    "dense_positives": _hero(reward={"dense": "positives"}),
    "dense_negatives": _hero(reward={"dense": "negatives"}),
    "dense_none": _hero(reward={"dense": "none"}),
    "normalized": _hero(learner={"advantage": "normalized"}),
    "normalized_weighting_off": _hero(learner={"advantage": "normalized"}, reward={"weighting": "off"}),
    "normalized_then_weighted": _hero(learner={"advantage": "normalized_then_weighted"}),
    "lone_center": _hero(reward={"lone": "center"}),
    "our_verifier": _hero(verifier={"kind": "math"}),
    "staleness_0": _hero(learner={"max_staleness": 0}),
    "staleness_4": _hero(learner={"max_staleness": 4}),
    "staleness_16": _hero(learner={"max_staleness": 16}),
}
"""Of `hero`, in the one regime where that gained most over `verifier`. A width or staleness of `hero` itself is left
out there: it would be the same cell twice."""
ARMS = MAIN | FURTHER | ABLATIONS


@dataclass(frozen=True)
class Cell:
    """One run."""

    arm: str
    regime: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.regime}-{self.seed}"


@dataclass(frozen=True)
class Inputs:
    """What `prepare` made for a seed: the policy that every arm starts from, and the reward models by their labels."""

    policy: Path
    reward_models: Mapping[Labels, Path] = field(default_factory=dict)


def main_cells(seeds: Sequence[int] = SEEDS) -> list[Cell]:
    """Seed by seed, so that whatever is finished compares every arm."""
    return [Cell(arm, regime, seed) for seed in seeds for regime in REGIMES for arm in MAIN]


def further_cells(seeds: Sequence[int] = SEEDS) -> list[Cell]:
    return [Cell(arm, regime, seed) for seed in seeds for regime in REGIMES for arm in FURTHER]


def ablation_cells(regime: str, seeds: Sequence[int] = SEEDS) -> list[Cell]:
    """Without those that would be `hero` itself there."""
    own = _decisive(Cell("hero", regime, 0))
    arms = [arm for arm in ABLATIONS if _decisive(Cell(arm, regime, 0)) != own]
    return [Cell(arm, regime, seed) for seed in seeds for arm in arms]


def tests_of(regime: str) -> list[str]:
    """The held-out sets of a regime's own families."""
    own = REGIMES[regime].families.keys()
    return [test for test, families in TESTS.items() if families.keys() <= own]


def base(regime: str = "mixed") -> Settings:
    """Settings that all cells of a regime share, and the making of their policies and reward models."""
    found = tomllib.loads(BASE.read_text())
    tests = {name: {"source": "reasoning-gym", "families": families} for name, families in TESTS.items()}
    merge(found, {"data": {"families": REGIMES[regime].families}, "eval": {"data": tests}})
    return found


def settings(cell: Cell, inputs: Inputs, folder: Path) -> Settings:
    """Everything that `hero up` is given for a cell that runs in `folder`."""
    found, arm, width = base(cell.regime), ARMS[cell.arm], REGIMES[cell.regime].width
    merge(found, {"run": {"name": cell.name, "folder": str(folder), "seed": cell.seed}})
    merge(found, {"weights": {"folder": str(folder / "weights")}})  # where nothing stays of a cell that is broken off
    merge(found, {"model": {"policy": str(inputs.policy)}, "reward": {"alpha": width, "beta": width}})
    if arm.labels and arm.labels in inputs.reward_models:
        merge(found, {"reward_model": {"model": str(inputs.reward_models[arm.labels])}})
    merge(found, arm.changes)
    return found


def merge(into: Settings, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Sets keys of sections; a value is replaced as a whole."""
    for section, keys in changes.items():
        into[section] = into.get(section, {}) | dict(keys)


def described() -> dict[str, Any]:
    """The protocol as it goes into results.json."""
    return {
        "seeds": SEEDS,
        "evaluated_at": EVALUATED_AT,
        "regimes": {name: {"families": r.families, "alpha_and_beta": r.width} for name, r in REGIMES.items()},
        "tests": TESTS,
        "arms": {
            group: {name: {"changes": arm.changes, "reward_model_labels": arm.labels} for name, arm in arms.items()}
            for group, arms in (("main", MAIN), ("further", FURTHER), ("ablations", ABLATIONS))
        },
        "base": tomllib.loads(BASE.read_text()),
        "critic": {"layers": CRITIC_LAYERS, **CRITIC},
    }


def _decisive(cell: Cell) -> Settings:
    """Settings without the cell's name, which decides nothing."""
    found = settings(cell, Inputs(Path()), Path())
    del found["run"]["name"]
    return found
