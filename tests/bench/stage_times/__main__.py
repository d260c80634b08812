"""`python -m tests.bench.stage_times RUN OUT.json`: the stage times of this machine, as the simulation reads them.

RUN is the folder of a finished run: its settings, weights and last groups are measured with. Every stage runs alone,
with the system's own code, in a process of its own, at two sizes or more, so that what it takes in any case comes apart
from what it takes for each token. On a CPU the seconds are CPU-seconds of the process and its children, over their
threads: by the clock whatever else runs on the machine would count.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib import import_module
from pathlib import Path

from common import config, logs
from tests.bench.simulate.inputs import Inputs
from tests.bench.stage_times.groups import last_groups, plant_of, work_of
from tests.bench.stage_times.measure import STAGES, measure


def main() -> int:
    logs.quiet_libraries()
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.stage_times",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # in a process of its own: SETTINGS LOG
    given = parser.parse_args()
    if given.stage:
        settings, read = config.from_dump(given.run.read_text()), given.out.read_text(encoding="utf-8")
        stage = import_module(f"tests.bench.stage_times.{given.stage}")
        found = stage.measure(settings, [json.loads(line) for line in read.splitlines()])
        print(json.dumps(found))
        return 0
    settings = config.from_dump((given.run / "settings.json").read_text())
    groups = last_groups(settings)
    origin = f"measured with run {settings.run.name} on {platform.machine()}, {platform.node()}"
    Inputs(measure(settings, groups), work_of(settings, groups), plant_of(settings), origin).save(given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
