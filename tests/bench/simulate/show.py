"""Tables and pictures of simulations and predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.simulate.inputs import Plant
from tests.bench.simulate.result import Result

console = Console(width=160)
Run = tuple[Plant, Result]


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    made = Table(*head, title=title, title_justify="left", row_styles=[""])
    made.columns[0].no_wrap = True
    for column in made.columns[1:]:
        column.justify = "right"
    for row in rows:
        made.add_row(*row)
    console.print(made)


HEAD = [
    "actors", "scorers", "ranks", "batch", "in flight", "step s", "tokens/s", "stale mean", "dropped", "sampling",
    "loading", "scoring", "training", "running",
]  # fmt: skip


def run_row(run: Run) -> list[str]:
    plant, found = run
    counts = [plant.actors, plant.scorers, plant.ranks, plant.groups_per_step, round(found.in_flight_mean)]
    shares = [found.dropped_share, found.actors, found.loading, found.scorers, found.learner]
    return [
        *map(str, counts),
        number(found.step_s),
        f"{found.tokens_per_s:,.0f}",
        f"{found.staleness_mean:.2f}",
        *(f"{share:.0%}" for share in shares),
        number(found.sequences),
    ]


def number(value: float) -> str:
    """Three digits."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def staleness(found: Result) -> str:
    return ", ".join(f"{value}: {share:.1%}" for value, share in found.staleness.items())


def scale_picture(series: Mapping[str, Sequence[Run]], title: str, file: Path) -> None:
    """Tokens a second, staleness with the share dropped, and how busy each kind is, over the number of actors."""
    plt = _pyplot()
    figure, (speed, stale, busy) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for place, (name, runs) in enumerate(series.items()):
        actors, color = [plant.actors for plant, _ in runs], f"C{place}"
        speed.loglog(actors, [found.tokens_per_s for _, found in runs], "o-", color=color, label=name)
        stale.semilogx(actors, [found.staleness_mean for _, found in runs], "o-", color=color, label=f"mean, {name}")
        stale.semilogx(actors, [found.dropped_share for _, found in runs], "x:", color=color, label=f"dropped, {name}")
    name, runs = list(series.items())[-1]
    actors = [plant.actors for plant, _ in runs]
    for kind in ("actors", "scorers", "learner"):
        busy.semilogx(actors, [getattr(found, kind) for _, found in runs], "o-", label=kind)
    speed.set(xlabel="actors", ylabel="trained tokens/s")
    stale.set(xlabel="actors", ylabel="staleness (steps), share dropped", ylim=(0, None))
    busy.set(xlabel="actors", ylabel="share of the time at work", ylim=(0, 1.02), title=name)
    for axes in (speed, stale, busy):
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def ratio_picture(runs: Sequence[Run], title: str, file: Path) -> None:
    """Steps an hour by actors and scorers; the ranks are what they leave. The best is framed."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7.5, 5.5), layout="constrained")
    rates = [3600 / found.step_s if math.isfinite(found.step_s) else 0.0 for _, found in runs]
    points = [(plant.actors, plant.scorers) for plant, _ in runs]
    drawn = axes.scatter(*zip(*points, strict=True), c=rates, s=110, marker="s", cmap="viridis")
    best = max(range(len(runs)), key=rates.__getitem__)
    plant = runs[best][0]
    axes.scatter(*points[best], s=220, marker="s", facecolors="none", edgecolors="red", linewidths=2)
    best_of = f"best: {plant.actors} actors, {plant.scorers} scorers, {plant.ranks} ranks"
    axes.set(xlabel="actors", ylabel="scorers")
    axes.set_title(f"{title}\n{best_of}", fontsize=10)
    figure.colorbar(drawn, label="steps an hour")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
