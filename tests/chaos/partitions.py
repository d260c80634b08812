"""`python -m tests.chaos.partitions --seed S --minutes M`: a run on several hosts, partitions, and an audit at the end.

Broker, learner, two actors and two scorers are hosts of their own (network namespaces: needs root, `ip` and `nft`). Any
two of them lose each other for 1 to 60 s, in one direction or both, silently; the broker is cut off from everybody, or
dies and comes back with its disk; hosts vanish without a packet and others come for them; one that was only cut off is
taken for dead and returns beside its successor; some are asked to leave while they are cut off. Half of the hosts talk
through a proxy that cuts connections, delays them and makes them stall (it says what stands for loss).

All must go on within GOES_ON_S of the end of what kept them apart. At the end the faults stop, training must go on, all
drain, and the surviving checkpoint is compared with the broker. The last line of standard output is JSON; exit code 1
when a ticket is lost, trained twice or repeated without cause, or when a process hangs or ends by itself; 2 without
root, `ip` or `nft`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import TextColumn

from common.lifecycle import LEFT_AT_ONCE
from common.progress import Bars
from tests.chaos import job
from tests.chaos.audit import FINDINGS, Observer
from tests.chaos.hosts import Network, NoNetwork
from tests.chaos.parted import POLL_S, Parted


def partitions(folder: Path, seed: int, minutes: float) -> dict[str, Any]:
    """The closing line of a run, and every violation on standard error."""
    started = time.monotonic()
    with Network() as network:
        run = Parted(network, folder, seed)
        observer = Observer(run.cluster.server.url, run.run_id)
        try:
            with Bars(TextColumn("{task.fields[steps]} steps, {task.fields[faults]} faults")) as bar:
                task = bar.add_task("seconds", total=round(60 * minutes), steps=0, faults=0)
                observer.start()
                while (seconds := time.monotonic() - started) < 60 * minutes:
                    run.turn()
                    faults = run.counts.total() - run.counts["one way"]
                    bar.update(task, completed=round(seconds), steps=run.steps.count, faults=faults)
                    time.sleep(POLL_S)
            run.calm()
            run.end()
            observer.end()
            outcome = job.outcome(folder / "run", run.settings, run.broker, observer)
        finally:
            run.cluster.close()
    counts = run.counts
    return {
        "seed": seed,
        "partitions": counts["partition"],
        "one_way": counts["one way"],
        "isolated": counts["isolate"],
        "vanished": counts["vanish"],
        "replaced": counts["replace"],
        "asked_to_leave": counts["leave"],
        "rebooted": counts["reboot"],
        "cuts": counts["cut"],
        "delays": counts["delay"],
        "losses": counts["loss"],
        **outcome.told(run.violations),
        "longest_gap_s": round(run.steps.longest_gap_s, 1),
        "slowest_return_s": round(run.slowest_return_s, 1),
        "slowest_leave_s": round(run.slowest_leave_s, 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.partitions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults; starting and draining come on top")
    parser.add_argument("--folder", type=Path, help="keep everything in this new folder (default: a temporary one)")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="partitions-") as temporary:
            folder = given.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            result = partitions(folder.resolve(), given.seed, given.minutes)
    except NoNetwork as error:
        print(f"tests.chaos.partitions: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return LEFT_AT_ONCE
    print(json.dumps(result))
    return 1 if any(result[name] for name in FINDINGS) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
