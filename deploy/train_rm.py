"""`hero rm`: a reward model from labelled completions, with what it is worth as a table and a picture."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from common.models import local_folder
from common.problems import load
from common.progress import Bars
from common.settings import Sections
from deploy.cold_start import refuse_foreign
from deploy.show import console
from scorer.reward_models.known import usage_of
from scorer.reward_models.labelled import Fields, LabelledGroup, read, subset

if TYPE_CHECKING:
    from scorer.reward_models.measure import Quality


def rm(settings: Sections) -> int:
    """Trains the reward model into rm.out; returns the exit code."""
    import torch

    from scorer.reward_models.train import Progress, RMOptions, train

    started = time.monotonic()
    r = settings.rm
    refuse_foreign(r.out)
    policy = local_folder(settings.model.policy, "model.policy", settings.model.revision)
    base = local_folder(r.base, "rm.base") if r.base else policy
    further = {file.name: _labelled(settings, file) for file in r.further}  # before hours of training
    groups = _sampled(settings, policy) if r.data is None else _chosen(settings, r.data)
    labels = [label for group in groups for label in group.labels]
    console.print(
        f"{len(labels):,} labelled completions of {len(groups):,} problems, {sum(labels) / len(labels):.1%} right",
        highlight=False,
    )
    torch.set_num_threads(r.threads)
    with Bars(console=console) as bars:
        tasks = {"training": bars.add_task("reward model", total=100)}

        def show(state: Progress) -> None:
            if state.phase not in tasks:
                tasks[state.phase] = bars.add_task(state.phase, total=100)
            bars.update(tasks[state.phase], completed=round(100 * state.fraction))

        options = RMOptions(
            epochs=r.epochs,
            lr=r.lr,
            batch_tokens=r.batch_tokens,
            holdout_fraction=r.holdout_fraction,
            seed=settings.run.seed,
            max_seconds=r.max_seconds,
            loss=r.loss,
            usage=usage_of("", settings.reward_model.layout, settings.reward_model.system_prompt),
        )
        trained = train(base, r.out, groups, options, show, further)
    found = dataclasses.asdict(trained) | {"quality": {name: q.json() for name, q in trained.quality.items()}}
    found["seconds_in_all"] = time.monotonic() - started
    (r.out / "rm.json").write_text(json.dumps(found, indent=1))
    draw(trained.quality, r.out / "rm.png")
    console.print(table(trained.quality))
    console.print(f"reward model in {r.out}, with rm.json and rm.png: {trained.steps:,} steps, {trained.seconds:.0f} s")
    return 0


def _sampled(settings: Sections, policy: Path) -> list[LabelledGroup]:
    """Samples of the policy, labelled by the verifier."""
    from deploy.sampling import judged_samples

    r = settings.rm
    problems, _ = load(settings, "rm", r.prompts)
    fit, sampled, right = judged_samples(settings, policy, problems, r.completions, r.label)
    return [
        LabelledGroup(problem.question, [one.text for one in group], oks, problem.answer)
        for problem, group, oks in zip(fit, sampled, right, strict=True)
    ]


def _chosen(settings: Sections, file: Path) -> list[LabelledGroup]:
    return subset(_labelled(settings, file), settings.rm.prompts, settings.rm.completions, settings.run.seed)


def _labelled(settings: Sections, file: Path) -> list[LabelledGroup]:
    data, r = settings.data, settings.rm
    most = r.further_rows if file in r.further else None
    groups, bad = read(file, Fields(data.question, r.completion_field, r.correct_field, data.answer), most)
    for line in bad[:5]:
        console.print(f"  {file.name}, line {line.number} left out: {line.reason}", highlight=False, markup=False)
    if len(bad) > 5:
        console.print(f"  and {len(bad) - 5} more", highlight=False)
    return groups


def table(quality: Mapping[str, Quality]) -> Table:
    """One line for each set."""
    found = Table(title="reward model", title_justify="left")
    columns = ("", "completions", "prompts", "right", "AUROC", "within prompts", "calibration error")
    for name in columns:
        found.add_column(name, justify="right" if name else "left")
    for name, q in quality.items():
        overall, within = (
            "-" if value != value else f"{value:.3f} [{low:.3f}, {high:.3f}]"
            for value, (low, high) in ((q.auroc, q.auroc_interval95), (q.auroc_within, q.auroc_within_interval95))
        )
        error = "-" if q.calibration_error != q.calibration_error else f"{q.calibration_error:.3f}"
        found.add_row(name, f"{q.completions:,}", f"{q.prompts:,}", f"{q.right:.1%}", overall, within, error)
    return found


def draw(quality: Mapping[str, Quality], out: Path) -> None:
    """A PNG: how often what the model says with which probability is true; and the AUROC of each set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    left.plot([0, 1], [0, 1], color="black", linewidth=0.6)
    for place, (name, q) in enumerate(quality.items()):
        said, true = [b[0] for b in q.bins], [b[1] for b in q.bins]
        left.plot(said, true, marker="o", markersize=3, label=f"{name} (error {q.calibration_error:.2f})")
        for offset, value, (low, high) in (
            (-0.1, q.auroc, q.auroc_interval95),
            (0.1, q.auroc_within, q.auroc_within_interval95),
        ):
            color = "tab:blue" if offset < 0 else "tab:orange"
            right.errorbar(value, place + offset, xerr=[[value - low], [high - value]], marker="o", color=color)
    left.set(xlabel="probability as the model says it", ylabel="share that was true")
    left.legend(fontsize=8)
    right.set_yticks(range(len(quality)), list(quality))
    right.axvline(0.5, color="black", linewidth=0.6)
    right.set(xlabel="AUROC, 95 %: blue over all, orange within prompts")
    figure.savefig(out, dpi=110)
    plt.close(figure)
