"""A rank of a learner without a policy, under a launcher: `python -m tests.integration.rank_script SCENARIO MODEL`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import numpy as np
import torch.distributed as dist

from common import config
from common.errors import HeroError
from common.lifecycle import stop_on_signals
from common.settings import Sections
from learner.ranks import Ranks, joined


def follows(ranks: Ranks) -> None:
    """Rank 0 has arrays summed until somebody is asked to stop; the others wait for orders."""
    stop_on_signals(stop=ranks.stop)
    if ranks.rank == 0:
        for size in (0, 3, 10**6):
            ranks.links[1].send({"order": "sum", "part": np.full(size, 7, np.int16)})
            assert ranks.links[1].receive() == {"answer": 7 * size}
        print("ready", flush=True)
        assert ranks.stop.wait(600)
        return
    print("ready", flush=True)
    while (message := ranks.order())["order"] == "sum":
        assert message["part"].dtype == np.int16
        ranks.links[0].send({"answer": int(message["part"].sum())})


def waits_for_1(ranks: Ranks) -> None:
    """All but rank 1 are in a collective that rank 1 never comes to."""
    print("ready", flush=True)
    time.sleep(600) if ranks.rank == 1 else dist.barrier()


def waits_for_0(ranks: Ranks) -> None:
    print("ready", flush=True)
    time.sleep(600) if ranks.rank == 0 else dist.barrier()


def fails(ranks: Ranks) -> None:
    """Rank 1 meets an error of its own, the others wait for it in a collective."""
    if ranks.rank == 1:
        raise ValueError("the GPU is on fire")
    dist.barrier()


def unlike(ranks: Ranks) -> None:
    raise AssertionError("they never come together")


SCENARIOS: dict[str, Callable[[Ranks], None]] = {
    f.__name__: f for f in (follows, waits_for_1, waits_for_0, fails, unlike)
}


def main(scenario: str, model: str) -> int:
    lr = 2e-5 if scenario == "unlike" and os.environ["RANK"] == "1" else 5e-5
    learner = {"ranks": int(os.environ["WORLD_SIZE"]), "lr": lr}
    try:
        with joined(Sections.model_validate({"model": {"policy": model}, "learner": learner})) as ranks:
            SCENARIOS[scenario](ranks)
    except HeroError as error:
        return config.fail(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
