"""The report's pictures, as PNG bytes."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.experiments.hero_vs_baselines import protocol
from deploy.experiments.hero_vs_baselines.analysis import By, student

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"verifier": "tab:blue", "rm": "tab:red", "blend": "tab:purple", "hero": "tab:green", "oracle": "black",
          "hero_gate_rm": "tab:olive"}  # fmt: skip

WITH_RM = ("rm", "blend", "hero")
"""The main arms that have a reward model."""


def learning_curves(runs: By) -> bytes:
    """Held-out accuracy over steps: a column for each regime, a row for each test; bands are 95 % over seeds."""
    figure, axes = _grid(len(protocol.TESTS), len(protocol.REGIMES))
    for row, test in zip(axes, protocol.TESTS, strict=True):
        for axis, regime in zip(row, protocol.REGIMES, strict=True):
            for arm, color in COLORS.items():
                curves = [[at[test]["avg@8"] for at in run["accuracy"]] for run in runs.get((arm, regime), {}).values()]
                _curve(axis, list(protocol.EVALUATED_AT), curves, arm, color)
            axis.set(title=f"trained on {regime}", ylabel=f"{test} test, avg@8", xlabel="step")
    return _png(figure, axes)


def training(runs: By, key: str, label: str, arms: tuple[str, ...]) -> bytes:
    """A figure of `groups.series` over steps, a panel for each regime."""
    figure, axes = _grid(1, len(protocol.REGIMES))
    for axis, regime in zip(axes[0], protocol.REGIMES, strict=True):
        for arm in arms:
            own = list(runs.get((arm, regime), {}).values())
            curves = [[math.nan if at[key] is None else at[key] for at in run["training"]] for run in own]
            _curve(axis, [at["step"] for at in own[0]["training"]] if own else [], curves, arm, COLORS[arm])
        axis.set(title=f"trained on {regime}", ylabel=label, xlabel="step")
    return _png(figure, axes)


def hacking(runs: By) -> bytes:
    """The reward model's mean score against the true accuracy of the same completions, over training; a line a run."""
    figure, axes = _grid(1, len(protocol.REGIMES))
    for axis, regime in zip(axes[0], protocol.REGIMES, strict=True):
        for arm in WITH_RM:
            for number, run in enumerate(runs.get((arm, regime), {}).values()):
                scores, truth = ([at[key] for at in run["training"]] for key in ("rm_score", "accuracy"))
                axis.plot(scores, truth, color=COLORS[arm], linewidth=0.8, label=None if number else arm)
                axis.plot(scores[-1], truth[-1], color=COLORS[arm], marker="o", markersize=4)
        axis.set(title=f"trained on {regime}", xlabel="mean score of the reward model", ylabel="true accuracy")
    return _png(figure, axes)


def _grid(rows: int, columns: int) -> tuple[Figure, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (4.4 * columns, 3.4 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    return figure, axes


def _curve(axis: Axes, steps: list[int], curves: list[list[float]], label: str, color: str) -> None:
    """Mean over seeds with its band."""
    if not curves:
        return
    values = np.array(curves, float)
    found = [student(list(column[np.isfinite(column)])) if np.isfinite(column).any() else None for column in values.T]
    axis.plot(steps, [one.value if one else math.nan for one in found], color=color, label=label)
    low, high = (
        [getattr(one, end) if one and math.isfinite(getattr(one, end)) else math.nan for one in found]
        for end in ("low", "high")
    )
    axis.fill_between(steps, low, high, color=color, alpha=0.12, linewidth=0)


def _png(figure: Figure, axes: Any) -> bytes:
    import matplotlib.pyplot as plt

    for axis in axes.flat:
        axis.grid(alpha=0.3)
    # One for all panels: an arm may have no runs in the first
    if told := {arm: line for axis in axes.flat for line, arm in zip(*axis.get_legend_handles_labels(), strict=True)}:
        figure.legend(told.values(), told.keys(), loc="outside upper center", ncols=len(told), fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    plt.close(figure)
    return out.getvalue()
