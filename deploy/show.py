"""What people look at: the line of a step, the closing table, the picture of the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from deploy.report.curves import trailing_mean

console = Console(stderr=True)


def step_line(
    line: dict[str, Any], total: int, backlog: dict[Any, Any], tokens_per_second: float, seconds_left: float
) -> str:
    """One step in one line of at most 110 characters."""
    rm = line.get("rm_score_mean")
    lags = "/".join(str(backlog.get(stage, {}).get("lag", "?")) for stage in ("tickets", "rollouts", "scored"))
    minutes, seconds = divmod(int(seconds_left), 60)
    return (
        f"step {line['step']:>4}/{total}  reward {line['reward_mean']:6.3f}  accuracy {line['accuracy']:.3f}  "
        + (f"rm {rm:6.2f}  w {line['weight_mean']:.2f}  " if rm is not None else "")
        + f"stale {line['staleness_mean']:.1f}  lag {lags}  {tokens_per_second:5.0f} tok/s  "
        + f"{minutes}:{seconds:02d} left"
    )


def evaluation_line(found: Mapping[str, Any]) -> str:
    """One round of the evaluation beside training in one line: its sets, and the versions of the policy it spans."""
    low, high, first, last = (found[name] for name in ("low", "high", "oldest_step", "newest_step"))
    sets = [f"{name} {one['accuracy']:.1%}" for name, one in found["sets"].items()] if len(found["sets"]) > 1 else []
    words = [
        f"evaluated at step {found['step']}: {found['accuracy']:.1%} [{100 * low:.1f}, {100 * high:.1f}]",
        *sets,
        f"{found['problems']:,} problems" + (f", {found['given_up']} given up" if found["given_up"] else ""),
        f"policy of step {first}" + (f" to {last}" if last > first else ""),
        f"cut off {found['truncated_share']:.1%}",
    ]
    return "  ".join(words)


def closing_table(summary: dict[str, Any]) -> Table:
    """The summary of a run as a table."""
    table = Table(title=f"run {summary['run']}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for kind, gain in (summary.get("accuracy_gain") or {}).items():
        points, low, high = (100 * gain[end] for end in ("difference", "low", "high"))
        table.add_row(
            f"held-out accuracy, {kind}",
            f"{summary['accuracy_before'][kind]:.1%} -> {summary['accuracy_after'][kind]:.1%}  "
            f"({points:+.1f} points [{low:+.1f}, {high:+.1f}])",
        )
    if beside := summary["evaluations"]:
        first, last = beside[0], beside[-1]
        table.add_row(
            f"beside training, steps {first['step']} to {last['step']}",
            f"{first['accuracy']:.1%} -> {last['accuracy']:.1%}  ({len(beside)} rounds)",
        )
    books = summary["tickets"]
    table.add_row("steps, groups trained", f"{summary['steps']}, {summary['groups_trained']}")
    table.add_row("tickets", ", ".join(f"{name} {count}" for name, count in books.items()))
    table.add_row("seconds", ", ".join(f"{name} {value:.0f}" for name, value in summary["seconds"].items()))
    table.add_row("sampled tokens per second", f"{summary['tokens_per_second']:.0f}")
    table.add_row(
        "engine against learner", f"log-probabilities differ by at most {summary['max_logprob_difference']:.2g}"
    )
    return table


def draw_curves(lines: Sequence[dict[str, Any]], summary: dict[str, Any], out: Path) -> None:
    """A PNG of reward, accuracy, weight and lengths over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = (
        ("verifier accuracy of training samples", ["accuracy"]),
        ("reward", ["reward_mean", "r_hat_mean"]),
        ("reward model: mean score, AUROC in mixed groups", ["rm_score_mean", "rm_auroc_mixed_groups"]),
        ("HERO weight and share of all-wrong groups", ["weight_mean", "all_wrong_share"]),
        ("completion tokens", ["completion_tokens_mean"]),
        ("staleness in steps", ["staleness_mean", "staleness_max"]),
    )
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), layout="constrained")
    for axis, (title, names) in zip(axes.flat, panels, strict=True):
        for name in names:
            points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
            if points:
                steps, values = zip(*points, strict=True)
                axis.plot(steps, values, alpha=0.3, linewidth=1)
                axis.plot(steps, trailing_mean(np.array(values, float)), color=axis.lines[-1].get_color(), label=name)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        if axis.lines:
            axis.legend(fontsize=8)
    if beside := summary["evaluations"]:
        steps, values = [one["step"] for one in beside], [one["accuracy"] for one in beside]
        ends = [[abs(one[end] - one["accuracy"]) for one in beside] for end in ("low", "high")]
        axes.flat[0].errorbar(steps, values, ends, fmt="o", markersize=3, capsize=2, label="held-out, beside training")
        axes.flat[0].legend(fontsize=8)
    for key, style in (("accuracy_before", ":"), ("accuracy_after", "--")):
        if summary.get(key):
            axes.flat[0].axhline(
                summary[key]["sampled"], linestyle=style, color="black", linewidth=1, label=f"held-out {key[9:]}"
            )
            axes.flat[0].legend(fontsize=8)
    figure.suptitle(f"{summary['run']}: {summary['steps']} steps, reward mode {summary['reward_mode']}")
    figure.savefig(out, dpi=110)
    plt.close(figure)
