"""`hero compare RUN`: how the rewards and advantages of a recorded run would change under other settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from common import config
from common.errors import DataError
from common.settings import Sections
from deploy.recorded import batches, graded, recomputed
from deploy.show import console
from learner.advantage import batch_advantages
from learner.reliability import Gate

KINDS = ("all wrong", "mixed", "all right")


@dataclass
class Side:
    """Rewards and advantages, one entry per completion, of all groups in their order."""

    rewards: list[float] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    """One per group."""

    def add(self, rows: Sequence[Mapping[str, Any]], settings: Sections, gate: Gate) -> None:
        """The rows of one batch, in their order."""
        known = [graded(row) for row in rows]
        gains = batch_advantages(known, settings.learner, settings.reward.correct_floor, gate.silenced(known))
        for row, gain in zip(rows, gains, strict=True):
            self.rewards += row["rewards"]
            self.gains += gain.tolist()
            self.weights.append(row["weight"])


@dataclass
class Change:
    """What a run recorded, and the same groups under other settings."""

    before: Side = field(default_factory=Side)
    after: Side = field(default_factory=Side)
    correct: list[bool] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """Of each completion's group, one of KINDS."""

    @property
    def groups(self) -> int:
        return len(self.before.weights)


def compare(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """Prints the table, draws the picture; returns the exit code."""
    file = arguments.run / "settings.json"
    if not file.is_file():
        raise DataError(f"{arguments.run} has no settings.json: give the folder of a run that `hero up` made")
    change = changed(arguments.run, config.load(file), config.load(file, list(flags)))
    out = arguments.plot or arguments.run / "compare.png"
    draw(change, out)
    console.print(table(change))
    console.print(f"picture: {out}", highlight=False)
    return 0


def changed(run: Path, before: Sections, after: Sections) -> Change:
    """Every group that was trained on, under both settings. Raises DataError for a run without any."""
    change = Change()
    gates = Gate(before.learner.min_rm_auroc), Gate(after.learner.min_rm_auroc)
    for batch in batches(run, before.learner.groups_per_step):
        rows = [recomputed(group, before.reward) for group in batch]
        for row in rows:
            right = [status == "correct" for status in row["statuses"]]
            change.correct += right
            change.kinds += [KINDS[0 if not any(right) else 2 if all(right) else 1]] * len(right)
        try:
            change.before.add(rows, before, gates[0])
            change.after.add([recomputed(group, after.reward) for group in batch], after, gates[1])
        except ValueError as error:
            raise DataError(f"step {batch[0]['step']} cannot be compared so: {error}") from error
    if not change.groups:
        raise DataError(f"the reward log of {run} has no groups yet")
    return change


def table(change: Change) -> Table:
    """One line per figure, before and after."""
    found = Table(title=f"{change.groups} groups, {len(change.correct)} completions", title_justify="left")
    for name in ("", "recorded", "would be"):
        found.add_column(name, justify="right" if name else "left")
    correct, kinds = np.array(change.correct), np.array(change.kinds)
    sides = [
        {"reward": np.array(side.rewards), "advantage": np.array(side.gains), "weight": np.array(side.weights)}
        for side in (change.before, change.after)
    ]

    def line(name: str, *values: float) -> None:
        found.add_row(name, *("-" if np.isnan(value) else f"{value:.3f}" for value in values))

    for name, chosen in (("right", correct), ("wrong", ~correct)):
        line(f"mean reward, {name} completions", *(_mean(side["reward"][chosen]) for side in sides))
    line("mean weight", *(_mean(side["weight"]) for side in sides))
    for kind in KINDS:
        line(f"mean |advantage|, {kind} groups", *(_mean(abs(side["advantage"][kinds == kind])) for side in sides))
    mixed = ~correct & (kinds == "mixed")
    line("wrong completions encouraged, mixed groups", *(_mean(side["advantage"][mixed] > 0) for side in sides))
    old, new = (side["advantage"] for side in sides)
    found.add_section()
    found.add_row("advantages that change sign", "", f"{_mean(np.sign(old) * np.sign(new) < 0):.1%}")
    if old.std() > 0 and new.std() > 0:
        found.add_row("correlation of advantages", "", f"{np.corrcoef(old, new)[0, 1]:.3f}")
    return found


def draw(change: Change, out: Path) -> None:
    """A PNG: advantages before and after, by verdict; and their sizes by kind of group."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    old, new, correct = np.array(change.before.gains), np.array(change.after.gains), np.array(change.correct)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for label, chosen, color in (("right", correct, "tab:green"), ("wrong", ~correct, "tab:red")):
        left.scatter(old[chosen], new[chosen], s=6, alpha=0.4, color=color, label=label)
    left.axline((0, 0), slope=1, color="black", linewidth=0.6)
    left.set(xlabel="advantage as recorded", ylabel="advantage as it would be")
    left.legend(fontsize=8)
    kinds, places = np.array(change.kinds), np.arange(len(KINDS))
    for offset, (label, gains) in enumerate((("recorded", old), ("would be", new))):
        sizes = [abs(gains[kinds == kind]).mean() if (kinds == kind).any() else 0.0 for kind in KINDS]
        right.bar(places + 0.4 * offset, sizes, 0.4, label=label)
    right.set_xticks(places + 0.2, KINDS)
    right.set_ylabel("mean |advantage|")
    right.legend(fontsize=8)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
