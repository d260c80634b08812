"""`hero compare RUN`: how the rewards and advantages of a recorded run would change under other settings."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from common import config
from common.errors import DataError
from common.settings import Sections
from deploy.recorded import batches, graded, recomputed
from deploy.show import console
from learner.advantage import batch_advantages
from learner.reliability import Gate

Floats = NDArray[np.float64]
KINDS = ("all wrong", "mixed", "all right")


@dataclass(frozen=True)
class Side:
    """One group under one configuration."""

    rewards: Floats
    advantages: Floats
    weight: float


@dataclass(frozen=True)
class Pair:
    """One group as it was paid, and as it would be."""

    correct: NDArray[np.bool_]
    """By the recorded verdicts."""
    differ: NDArray[np.bool_]
    """Right by one verdict and wrong by the other."""
    kind: str
    """One of KINDS."""
    before: Side
    after: Side


class Change:
    """Groups as they were paid, and as they would be under other settings: the latest `most` completions, or all."""

    def __init__(self, before: Sections, after: Sections, most: int | None = None) -> None:
        self._configurations = [(settings, Gate(settings.learner.min_rm_auroc)) for settings in (before, after)]
        self._most = most
        self._pairs: deque[Pair] = deque()
        self.completions = 0

    def add(self, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[Pair]:
        """One batch by its rows before and after, in the same order: what of a row of `hero score` `graded` reads.

        Raises ValueError where a rule lacks the scores.
        """
        sides = [_sides(rows, *own) for rows, own in zip((before, after), self._configurations, strict=True)]
        found = []
        for old, new, *both in zip(before, after, *sides, strict=True):
            right, then = (np.array([s == "correct" for s in row["statuses"]]) for row in (old, new))
            kind = KINDS[0 if not right.any() else 2 if right.all() else 1]
            found.append(Pair(right, right != then, kind, *both))
            self.completions += len(right)
        self._pairs += found
        while self._most is not None and self.completions > self._most and len(self._pairs) > 1:
            self.completions -= len(self._pairs.popleft().correct)
        return found

    @property
    def groups(self) -> int:
        return len(self._pairs)

    def columns(self) -> Columns:
        """Everything about all completions; ValueError without a group."""
        pairs = self._pairs
        return Columns(
            correct=np.concatenate([p.correct for p in pairs]),
            differ=np.concatenate([p.differ for p in pairs]),
            kinds=np.repeat([p.kind for p in pairs], [len(p.correct) for p in pairs]),
            rewards=_both(pairs, lambda side: side.rewards),
            advantages=_both(pairs, lambda side: side.advantages),
            weights=_both(pairs, lambda side: np.array([side.weight])),
        )


@dataclass(frozen=True)
class Columns:
    """One entry per completion, in the order of the groups; of weights one per group. Pairs are (before, after)."""

    correct: NDArray[np.bool_]
    differ: NDArray[np.bool_]
    kinds: NDArray[np.str_]
    rewards: tuple[Floats, Floats]
    advantages: tuple[Floats, Floats]
    weights: tuple[Floats, Floats]

    @property
    def sign_changes(self) -> float:
        """Share of the advantages that change sign."""
        old, new = self.advantages
        return mean(np.sign(old) * np.sign(new) < 0)


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
    change = Change(before, after)
    for batch in batches(run, before.learner.groups_per_step):
        try:
            change.add(*([recomputed(group, settings.reward) for group in batch] for settings in (before, after)))
        except ValueError as error:
            raise DataError(f"step {batch[0]['step']} cannot be compared so: {error}") from error
    if not change.groups:
        raise DataError(f"the reward log of {run} has no groups yet")
    return change


def table(change: Change) -> Table:
    """One line per figure, before and after."""
    found = Table(title=f"{change.groups} groups, {change.completions} completions", title_justify="left")
    for name in ("", "recorded", "would be"):
        found.add_column(name, justify="right" if name else "left")
    c = change.columns()

    def line(name: str, *values: float) -> None:
        found.add_row(name, *("-" if np.isnan(value) else f"{value:.3f}" for value in values))

    for name, chosen in (("right", c.correct), ("wrong", ~c.correct)):
        line(f"mean reward, {name} completions", *(mean(rewards[chosen]) for rewards in c.rewards))
    line("mean weight", *(mean(weights) for weights in c.weights))
    for kind in KINDS:
        line(f"mean |advantage|, {kind} groups", *(mean(abs(gains[c.kinds == kind])) for gains in c.advantages))
    mixed = ~c.correct & (c.kinds == "mixed")
    line("wrong completions encouraged, mixed groups", *(mean(gains[mixed] > 0) for gains in c.advantages))
    old, new = c.advantages
    found.add_section()
    found.add_row("verdicts that differ", "", f"{mean(c.differ):.1%}")
    found.add_row("advantages that change sign", "", f"{c.sign_changes:.1%}")
    if old.std() > 0 and new.std() > 0:
        found.add_row("correlation of advantages", "", f"{np.corrcoef(old, new)[0, 1]:.3f}")
    return found


def draw(change: Change, out: Path) -> None:
    """A PNG: advantages before and after, by verdict; and their sizes by kind of group."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    c = change.columns()
    old, new = c.advantages
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for label, chosen, color in (("right", c.correct, "tab:green"), ("wrong", ~c.correct, "tab:red")):
        left.scatter(old[chosen], new[chosen], s=6, alpha=0.4, color=color, label=label)
    left.axline((0, 0), slope=1, color="black", linewidth=0.6)
    left.set(xlabel="advantage as recorded", ylabel="advantage as it would be")
    left.legend(fontsize=8)
    places = np.arange(len(KINDS))
    for offset, (label, gains) in enumerate((("recorded", old), ("would be", new))):
        sizes = [abs(gains[c.kinds == kind]).mean() if (c.kinds == kind).any() else 0.0 for kind in KINDS]
        right.bar(places + 0.4 * offset, sizes, 0.4, label=label)
    right.set_xticks(places + 0.2, KINDS)
    right.set_ylabel("mean |advantage|")
    right.legend(fontsize=8)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def mean(values: Any) -> float:
    """nan of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


def _sides(rows: Sequence[Mapping[str, Any]], settings: Sections, gate: Gate) -> list[Side]:
    """The rows of one batch under one configuration."""
    known = [graded(row) for row in rows]
    gains = batch_advantages(known, settings.learner, settings.reward.correct_floor, gate.silenced(known))
    return [
        Side(np.asarray(row["rewards"], dtype=np.float64), gain, row["weight"])
        for row, gain in zip(rows, gains, strict=True)
    ]


def _both(pairs: Iterable[Pair], column: Callable[[Side], Floats]) -> tuple[Floats, Floats]:
    return np.concatenate([column(p.before) for p in pairs]), np.concatenate([column(p.after) for p in pairs])
