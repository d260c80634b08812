"""The commands of `python -m tests.bench.simulate`: what each computes and shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from learner.footprint import kv_bytes, training_bytes
from tests.bench.simulate import cost as model
from tests.bench.simulate import show
from tests.bench.simulate.cost import Assumptions, Job
from tests.bench.simulate.inputs import Inputs
from tests.bench.simulate.run import simulate
from tests.bench.simulate.split import Devices, cells, growing, search, stage_seconds

SHOWN = 6  # divisions, the best
STEADY_STEPS = 10


def run(given: Inputs, steps: int, seed: int) -> None:
    found = simulate(given.times, given.work, given.plant, steps, seed)
    show.table("", show.HEAD, [show.run_row((given.plant, found))])
    alone = stage_seconds(given.times, given.work, given.plant)
    shown = {kind: show.number(seconds) for kind, seconds in alone.items()}
    show.console.print(f"staleness {show.staleness(found)}; redelivered {found.redelivered}")
    show.console.print(f"seconds a step that each kind takes if it never waits: {shown}")


def scale(given: Inputs, counts: Sequence[int], steps: int, out: Path | None) -> None:
    """Over the number of actors, with scorers and ranks in proportion: one batch for all, and one that grows."""
    size = given.plant.groups_per_step
    half = max(1, given.plant.groups_in_flight // 2)  # with a bound of one step, so much fills an actor
    series: dict[str, list[show.Run]] = {f"batch of {size}": [], f"batch of {half} an actor": []}
    for actors in counts:
        for runs, groups in zip(series.values(), (size, half * actors), strict=True):
            plant = growing(given.times, given.work, replace(given.plant, groups_per_step=groups), actors)
            runs.append((plant, simulate(given.times, given.work, plant, steps)))
    for name, runs in series.items():
        show.table(f"{name}; {given.origin}", show.HEAD, [show.run_row(run) for run in runs])
    if out:
        show.scale_picture(series, given.origin, out)


def ratio(given: Inputs, devices: Devices, steps: int, out: Path | None) -> None:
    runs = search(given.times, given.work, given.plant, devices, steps)
    title = f"{devices.total} devices; {given.origin}"
    show.table(title, show.HEAD, [show.run_row(run) for run in runs[:SHOWN]])
    if out:
        drawn = cells(given.times, given.work, given.plant, devices, steps)
        show.ratio_picture([*drawn, *runs], title, out)


def cost(jobs: Sequence[Job], given: Assumptions, gpus: Sequence[int]) -> None:
    """`jobs` on so many GPUs each, and the first device's largest plant under other assumptions."""
    show.console.print(
        "[bold]PREDICTIONS: arithmetic with assumed shares of the peak; nothing was run on a GPU.[/bold]"
    )
    first = [job for job in jobs if job.device == jobs[0].device]
    show.table("learner: GB on one rank", MEMORY, [row for job in first for row in _memory(job)])
    show.table("actor", ACTOR, [_actor(job, given) for job in jobs])
    show.table("plant", PLANT, [_division(job, count, given, "") for job in jobs for count in gpus])
    changed = {
        f"mfu {given.mfu / 2:g}": {"mfu": given.mfu / 2},
        f"mbu {given.mbu / 2:g}": {"mbu": given.mbu / 2},
        f"prefill mfu {given.prefill_mfu / 2:g}": {"prefill_mfu": given.prefill_mfu / 2},
        "weights at 10 GB/s": {"carrier_bytes_s": 10e9},
    }
    rows = []
    for job in first:
        rows += [_division(job, gpus[-1], replace(given, **other), name) for name, other in changed.items()]
        loose = replace(job, max_staleness=job.max_staleness + 2)
        rows.append(_division(loose, gpus[-1], given, f"staleness {loose.max_staleness}"))
    show.table("the same under another assumption", PLANT, rows)


MEMORY = ["policy", "ZeRO", "ranks", "weights", "gradients", "optimizer", "activations", "logits", "in all"]


def _memory(job: Job) -> list[list[str]]:
    rows = []
    for stage, ranks in ((1, 8), (2, 8), (3, 8), (3, 32)):
        parts = training_bytes(job.shape, stage, ranks, job.micro_batch_tokens)
        sizes = [f"{size / 1e9:.1f}" for size in (*parts.values(), sum(parts.values()))]
        rows.append([job.policy, str(stage), str(ranks), *sizes])
    return rows


ACTOR = ["policy", "GPUs", "running at once", "cache KB/token", "decode ms/step", "tokens/s", "load s"]


def _actor(job: Job, given: Assumptions) -> list[str]:
    size = model.tensor_parallel(job, given)
    times, running = model.predict(job, size, given), model.sequences_that_fit(job, size, given)
    step_s = times.decode_s(running, running * job.context)
    sizes = [kv_bytes(job.shape) / 1e3, 1000 * step_s, running / step_s, times.load_s]
    return [f"{job.policy} on {job.device}", str(size), str(running), *map(show.number, sizes)]


PLANT = [
    "job", "GPUs", "actors", "scorers", "ranks", "step s", "tokens/s", "GPU-h / 1,000", "dropped", "sampling",
    "scoring", "training", "publish s",
]  # fmt: skip


def _division(job: Job, gpus: int, given: Assumptions, assumed: str) -> list[str]:
    """The best division; `assumed` names what is different from the table above."""
    size, least = model.tensor_parallel(job, given), model.least_ranks(job, given)
    head = [f"{job.policy}, {assumed}" if assumed else f"{job.policy} on {job.device}", str(gpus)]
    if gpus < size + 1 + least:
        return [*head, f"{size}", "1", f"{least} at least", *["-"] * (len(PLANT) - 5)]
    fed, devices = model.inputs(job, size, given), Devices(gpus, actor=size, least_ranks=least)
    steps = STEADY_STEPS + 3 * (job.max_staleness + 1) + 1
    plant, found = search(fed.times, fed.work, fed.plant, devices, steps)[0]
    return [
        *head,
        str(plant.actors) + (f" x {size}" if size > 1 else ""),
        str(plant.scorers),
        f"{plant.ranks}, ZeRO-{model.zero_stage(job, plant.ranks, given)}",
        show.number(found.step_s),
        f"{found.tokens_per_s:,.0f}",
        show.number(model.gpu_hours_per_1000_prompts(found.step_s, gpus, job.groups_per_step)),
        *(f"{share:.0%}" for share in (found.dropped_share, found.actors, found.scorers, found.learner)),
        show.number(fed.times.publish_s),
    ]
