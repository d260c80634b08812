"""`python -m tests.bench.simulate`: how a plant of so many processes would run, and what it would cost."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path

from tests.bench.simulate import cost, inputs, report
from tests.bench.simulate.inputs import Plant
from tests.bench.simulate.known import DEVICES
from tests.bench.simulate.split import Devices

DESCRIPTION = """Simulates the whole pipeline from the seconds of its stages, by the system's own rules, and predicts
what a job takes on GPUs. A simulation is as good as its stage times: measure those of a machine with
`python -m tests.bench.stage_times RUN OUT.json`. Without --times they are PREDICTED for --policy on --device."""
EXAMPLES = """examples:
  python -m tests.bench.simulate run --times times.json --actors 2 --max-staleness 3
  python -m tests.bench.simulate scale --out scale.png          1 to 1,000 actors
  python -m tests.bench.simulate ratio --devices 64 --out ratio.png
  python -m tests.bench.simulate cost                           the tables of the README, in three minutes
  python -m tests.bench.simulate cost --mfu 0.15 --device H100  under other assumptions"""


POLICIES = ["Qwen3-4B", "Qwen3-32B"]


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    assumptions = cost.Assumptions(**{field.name: getattr(given, field.name) for field in fields(cost.Assumptions)})
    changes = {f.name: v for f in fields(cost.Job) if (v := getattr(given, f.name, None)) is not None}
    job = replace(cost.Job(), **changes)
    if given.command == "cost":
        policies, devices = (
            [one] if one else known for one, known in ((given.policy, POLICIES), (given.device, DEVICES))
        )
        report.cost([replace(job, policy=p, device=d) for p in policies for d in devices], assumptions, given.gpus)
        return 0
    if given.times:
        found, size, least = inputs.load(given.times), 1, 1
    else:
        size, least = cost.tensor_parallel(job, assumptions), cost.least_ranks(job, assumptions)
        found = cost.inputs(job, size, assumptions)
    rules = {f.name: v for f in fields(Plant) if (v := getattr(given, f.name, None)) is not None}
    found = replace(found, plant=replace(found.plant, **rules))
    print(f"stage times: {found.origin}", file=sys.stderr)
    if given.command == "run":
        report.run(found, given.steps, given.seed)
    elif given.command == "scale":
        report.scale(found, given.counts, given.steps, given.out)
    else:
        report.ratio(found, Devices(given.devices, actor=size, least_ranks=least), given.steps, given.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.simulate", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="one plant: its throughput, staleness and how busy everybody is")
    scale = commands.add_parser("scale", help="over the number of actors: a table and a picture")
    ratio = commands.add_parser("ratio", help="the best division of devices: a table and a heat map")
    price = commands.add_parser("cost", help="step time, GPU-hours and memory on GPUs, PREDICTED")
    for some in (run, scale, ratio):
        some.add_argument("--times", type=Path, help="stage times as JSON; without it they are predicted")
        some.add_argument("--steps", type=int, default=20 if some is not run else 60, help="of the learner")
        some.add_argument("--groups-in-flight", type=int, help="of one actor")
        some.add_argument("--batch-groups", type=int, help="of one scorer's batch")
        some.add_argument("--over-sampling", type=float, help="tickets in flight beyond the bound, as a share")
        some.add_argument("--kill-every-s", type=float, help="mean seconds between two deaths of one actor")
    for name in ("actors", "scorers", "ranks"):
        run.add_argument(f"--{name}", type=int, help="those of the run that was measured, or 1")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument(
        "--shared-cores", type=float, help="cores that learner and scorers share; unset: nothing is shared"
    )
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    scale.add_argument("--counts", type=int, nargs="+", default=counts, metavar="ACTORS", help="1 to 1,000")
    ratio.add_argument("--devices", type=int, default=64, help="GPUs, or cores, to divide")
    for some in (scale, ratio):
        some.add_argument("--out", type=Path, help="the picture, .png")
    price.add_argument("--gpus", type=int, nargs="+", default=[8, 64])
    for some in (run, scale, ratio, price):
        work = some.add_argument_group("job")
        work.add_argument("--policy", choices=POLICIES, help="Qwen3-4B; cost: and Qwen3-32B")
        work.add_argument("--device", choices=sorted(DEVICES), help="H200; cost: and H100")
        for name in ("groups-per-step", "max-staleness", "mini-steps", "prompt-tokens", "max-tokens"):
            work.add_argument(f"--{name}", type=int)
        for name in ("mean-tokens", "sigma"):
            work.add_argument(f"--{name}", type=float, help="of the lognormal lengths of completions")
        assumed = some.add_argument_group("assumptions")
        for field in fields(cost.Assumptions):
            assumed.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
