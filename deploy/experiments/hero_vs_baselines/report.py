"""What people look at: the tables on the terminal, and report.html with tables and pictures in one file."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

from rich.table import Table

from deploy.experiments.hero_vs_baselines import analysis, claims, figures, protocol
from deploy.experiments.hero_vs_baselines.analysis import lessons
from deploy.experiments.hero_vs_baselines.groups import KINDS
from deploy.experiments.hero_vs_baselines.results import Results
from deploy.report.document import document
from deploy.run_folder import write_atomically

TEMPLATE = Path(__file__).with_name("report.html.jinja")
LESSONS = ("groups", "teachable", "pull", "agreement")
"""What of `groups.lessons` is shown."""
Rows = list[list[str]]


def final_rows(results: Results) -> Rows:
    """A row for each arm: final accuracy in each regime, percent with 95 % interval, and the seeds behind it."""
    found = analysis.finals(runs := analysis.by_arm(results.runs))
    rows = []
    for arm in protocol.ARMS:
        cells, seeds = [], []
        for regime in protocol.REGIMES:
            one = found.get((arm, regime))
            cells.append(f"{100 * one.value:.1f} {claims.interval(one)}" if one else "-")
            seeds.append(len(runs.get((arm, regime), {})))
        if any(seeds):
            rows.append([arm, *cells, "/".join(map(str, seeds))])
    return rows


def difference_rows(results: Results) -> Rows:
    """A row for each comparison: regime, arms, difference with interval, verdict on its being above zero."""
    return [
        [d.regime, f"{d.arm} - {d.than}", claims.points(d.estimate), d.verdict, str(len(d.by_seed))]
        for d in analysis.differences(analysis.by_arm(results.runs))
    ]


def lesson_rows(results: Results) -> Rows:
    """What each kind of group taught: a row for each main arm, regime and kind."""
    runs = analysis.by_arm(results.runs)
    return [
        [arm, regime, kind.replace("_", " "), *(_percent(lessons(runs, arm, regime, kind, key)) for key in LESSONS)]
        for arm, regime in runs
        if arm in protocol.MAIN | protocol.FURTHER
        for kind in KINDS
    ]


def gate_rows(results: Results) -> Rows:
    """The gate on the cold-started policy's samples, by seed and held-out set."""
    keys = ("right", "recall", "false_positive_rate", "precision")
    return [
        [seed, test, *(_percent(known["gate"][test][key]) for key in keys)]
        + [_percent(known["reward_models"][labels][test]["auroc_within"]) for labels in ("task", "gate")]
        for seed, known in sorted(results.seeds.items())
        for test in protocol.TESTS
    ]


def tables(results: Results) -> list[Table]:
    """Final accuracies, differences, claims."""
    first = Table(title="final accuracy (avg@8, %)", title_justify="left")
    for name in ("arm", *protocol.REGIMES, "seeds"):
        first.add_column(name)
    second = Table(title="differences, paired by seed (points)", title_justify="left")
    for name in ("trained on", "arms", "difference", "above zero", "seeds"):
        second.add_column(name)
    third = Table(title="claims", title_justify="left", show_header=False)
    third.add_column()
    for table, rows in (
        (first, final_rows(results)),
        (second, difference_rows(results)),
        (third, [[line] for line in claims.lines(results)]),
    ):
        for row in rows:
            table.add_row(*row)
    return [first, second, third]


def write(results: Results, out: Path) -> Path:
    """report.html, pictures included; returns its path."""
    runs = analysis.by_arm(results.runs)
    main = tuple(protocol.MAIN)
    pictures = {
        "Learning curves on held-out problems": figures.learning_curves(runs),
        "Reward hacking: what the reward model sees against the truth; the dot is the end": figures.hacking(runs),
        "The reward model within groups, over training": figures.training(runs, "rm_auroc", "AUROC", figures.WITH_RM),
        "Right completions that the gate accepts, over training": figures.training(runs, "gate_recall", "recall", main),
        "Groups in which the gate accepts nothing": figures.training(runs, "all_wrong", "share of groups", main),
    }
    page = document(
        TEMPLATE,
        claims=claims.lines(results),
        regimes=list(protocol.REGIMES),
        finals=final_rows(results),
        differences=difference_rows(results),
        gate=gate_rows(results),
        lessons=lesson_rows(results),
        pictures=[(title, base64.b64encode(png).decode()) for title, png in pictures.items()],
        runs=len(results.runs),
        hours=sum(run["seconds"] for run in results.runs) / 3600,
    )
    write_atomically(out, page)
    return out


def _percent(value: Any) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"
