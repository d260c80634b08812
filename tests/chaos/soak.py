"""`python -m tests.chaos.soak --kills N --seed S`: a run under fire, and an audit of what came of every ticket.

One server with an append-only file, the real DeepSpeed learner with a tiny model, real actors around a sampler without
a model (`--real-engine`: around vLLM), real scorers with their verification children. They are killed, asked to leave
and frozen at any instant, their connections are cut in mid-reply and delayed, the server is killed and filled up, and
so is the disk under the run folder (`--losses`: the server also loses all that it has); whoever is gone is started
again at once. At the end the faults stop, training must go on, all drain, and the surviving checkpoint is compared with
the broker, and its weights, bit for bit, with those of an uninterrupted run over the same record. The last line of
standard output is JSON; exit code 1 when a ticket is lost, trained twice or repeated without cause, when the weights
differ, or when a process ended by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from rich.progress import TextColumn

from common.progress import Bars
from common.streams import Broker
from tests.chaos import job
from tests.chaos.audit import FINDINGS, Observer
from tests.chaos.fire import POLL_S, BrokerKind, Fire

MOST_VIOLATIONS = 10
KILLS_PER_STEP = 5  # at most: so many steps must survive


def soak(
    folder: Path,
    seed: int,
    kills: int,
    *,
    actors: int = 2,
    scorers: int = 2,
    real: bool = False,
    losses: bool = False,
    broker: BrokerKind = "server",
    weights_from: job.WeightsFrom = "folder",
    minutes: float = 75.0,
) -> dict[str, Any]:
    """The closing line of a soak, and every violation on standard error."""
    started = time.monotonic()
    run = Fire(
        folder,
        seed,
        broker=broker,
        actors=actors,
        scorers=scorers,
        real=real,
        losses=losses,
        weights_from=weights_from,
    )
    observer = Observer(run.server.url, run.run_id)
    losses |= broker == "sentinel"  # a replica that takes over may lack what its primary acknowledged last
    learner_kills = kills // 10
    try:
        with Bars(TextColumn("{task.fields[steps]} steps")) as bar:
            task = bar.add_task("kills", total=kills, steps=0)
            observer.start()
            while run.kills < kills or run.counts["kill learner"] < learner_kills or run.unmet:
                if len(run.violations) > MOST_VIOLATIONS:
                    break
                if time.monotonic() - started > 60 * minutes:
                    run.violations.append(f"{run.kills} of {kills} kills in {minutes:g} minutes")
                    break
                run.turn()
                bar.update(task, completed=min(run.kills, kills), steps=run.steps.look())
                time.sleep(POLL_S)
        run.calm()
        run.end()
        observer.end()
        outcome = job.outcome(
            run.folder,
            run.settings,
            Broker(run.server.url, run.run_id, "audit"),
            observer,
            losses=losses,
            replay=not (real and losses),  # what was sampled twice differs
        )
        if outcome.step < kills // KILLS_PER_STEP:
            run.violations.append(f"{outcome.step} surviving steps, {kills // KILLS_PER_STEP} are wanted")
    finally:
        run.close()
    return {
        "seed": seed,
        "kills": run.kills,
        "faults": dict(sorted(run.counts.items())),
        **outcome.told(run.violations),
        "learner_kills": run.counts["kill learner"],
        "seconds": round(time.monotonic() - started, 1),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000, help="SIGKILLs in all, a tenth of them the learner's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real-engine", action="store_true", help="vLLM in the actors; an actor takes 10 s to start")
    parser.add_argument(
        "--broker",
        choices=get_args(BrokerKind),
        default="server",
        help="one server with a proxy before it (cut, delayed, full); three Sentinels that fail a primary over; "
        "a cluster of three nodes",
    )
    parser.add_argument("--losses", action="store_true", help="also FLUSHALL, and an empty server at the same address")
    parser.add_argument(
        "--weights-from",
        choices=get_args(job.WeightsFrom),
        default="folder",
        help="how new weights reach the actors: the learner's folder, through the broker, or by broadcasts",
    )
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--scorers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=75.0, help="fail when the kills take longer")
    parser.add_argument("--folder", type=Path, help="keep everything here (default: a temporary folder)")
    given = parser.parse_args(arguments)
    if given.losses and given.broker != "server":
        parser.error("--losses is for --broker server")
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = soak(
            folder.resolve(),
            given.seed,
            given.kills,
            actors=given.actors,
            scorers=given.scorers,
            real=given.real_engine,
            losses=given.losses,
            broker=given.broker,
            weights_from=given.weights_from,
            minutes=given.minutes,
        )
    print(json.dumps(result))
    return 1 if any(result[name] for name in FINDINGS) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
