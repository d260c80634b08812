"""What people look at of an evaluation: the tables and the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from common.accuracy import LEAST_P

MEAN = "mean of the sets"


def accuracies(summary: Mapping[str, Any]) -> Table:
    """A column for each model. For each set accuracies and what the samples were like; then the mean of the sets."""
    models = summary["models"]
    table = Table(title="accuracy in % and its 95 % interval over problems", title_justify="left")
    for name in ("", *models):
        table.add_column(name, justify="right" if name else "left")
    for set_name in _sets(summary):
        own = [model["sets"].get(set_name) for model in models.values()]
        problems = max(figures["problems"] for figures in own if figures)
        table.add_row(f"{set_name}, {problems:,} problems", style="bold")
        found = [figures["accuracy"] if figures else {} for figures in own]
        for name in _names(found):
            table.add_row(f"  {name}", *(_interval(accuracy.get(name)) for accuracy in found))
        for label, values in _samples(own).items():
            table.add_row(f"  {label}", *values, style="dim")
        table.add_section()
    if len(_sets(summary)) > 1:
        means = [model["mean"] if len(model["sets"]) == len(_sets(summary)) else {} for model in models.values()]
        table.add_row(MEAN, style="bold")
        for name in _names(means):
            table.add_row(f"  {name}", *(_interval(mean.get(name)) for mean in means))
    return table


def comparisons(lines: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each pair of models, set and figure."""
    table = Table(
        title="differences on the same problems, in points, with 95 % interval",
        caption="p: sign-flip test over problems, of each line alone",
        title_justify="left",
        caption_justify="left",
    )
    for column in ("", "set", "figure", "difference", "p"):
        table.add_column(column, justify="right" if column in ("difference", "p") else "left")
    for line in lines:
        first, second = line["models"]
        points, low, high = (100 * line[end] for end in ("difference", "low", "high"))
        table.add_row(
            f"{second} - {first}",
            line["set"] or MEAN,
            line["figure"],
            f"{points:+.1f} [{low:+.1f}, {high:+.1f}]",
            _p(line["p"]),
        )
    return table


def draw(summary: Mapping[str, Any], out: Path) -> None:
    """A PNG: greedy and pass@1, a bar with its interval for each model in each set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = summary["models"]
    sets = _sets(summary)
    groups = [*sets, MEAN] if len(sets) > 1 else sets
    width = 0.8 / len(models)
    figure, axes = plt.subplots(
        2, 1, figsize=(3 + 1.1 * len(groups) * max(1.0, len(models) / 2), 7), layout="constrained"
    )
    for axis, name in zip(axes, ("greedy", "pass@1"), strict=True):
        for number, (model, found) in enumerate(models.items()):
            bars = [
                found["mean"] if group == MEAN else found["sets"].get(group, {}).get("accuracy") for group in groups
            ]
            places = [place + number * width for place, bar in enumerate(bars) if bar]
            ends = [bar[name] for bar in bars if bar]
            values = [100 * end["value"] for end in ends]
            reach = [[100 * (e["value"] - e["low"]) for e in ends], [100 * (e["high"] - e["value"]) for e in ends]]
            axis.bar(places, values, width, yerr=reach, capsize=3, label=model, error_kw={"linewidth": 1})
        axis.set_xticks([place + width * (len(models) - 1) / 2 for place in range(len(groups))], groups)
        axis.set(ylabel=f"{name}, %", ylim=(0, None))
    axes[0].legend(fontsize=8)
    figure.suptitle("held-out accuracy, 95 % intervals over problems")
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _sets(summary: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for model in summary["models"].values() for name in model["sets"]))


def _names(accuracies: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for found in accuracies for name in found))


def _p(p: float) -> str:
    if p <= LEAST_P:
        return f"<{LEAST_P:.0e}"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def _interval(found: Mapping[str, float] | None) -> str:
    return "-" if found is None else f"{100 * found['value']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _samples(models: Sequence[Mapping[str, Any] | None]) -> dict[str, list[str]]:
    """What the samples of one set were like: a cell for each model; statuses that nobody has are left out."""
    cells: dict[str, list[str]] = {"cut at the limit": [_percent(f and f["truncated"]) for f in models]}
    for status in ("no_answer", "unparsable", "timeout", "error"):
        counts = [f["statuses"]["samples"].get(status, 0) if f else 0 for f in models]
        if any(counts) or status == "no_answer":
            cells[status] = [_percent(f and c / max(1, f["completions"])) for c, f in zip(counts, models, strict=True)]
    if any(f and f["prompts_too_long"] for f in models):
        cells["prompt too long"] = [_percent(f and f["prompts_too_long"] / f["problems"]) for f in models]
    cells["tokens"] = ["-" if not f or f["tokens_mean"] is None else f"{f['tokens_mean']:,.0f}" for f in models]
    return cells


def _percent(share: Any) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
