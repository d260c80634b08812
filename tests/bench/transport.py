"""What moving a batch through the broker costs: packing, Redis, unpacking, with nothing else running.

One step's groups walk all stages, one worker a stage, on a real server; the seconds that this takes are
compared with those of a training step of the default job, measured by `tests.bench.pipeline`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from common.server import LocalServer
from common.streams import Broker
from tests.make import rollout, scored, ticket

GROUPS, COMPLETIONS, PROMPT_TOKENS, TOKENS = 32, 8, 40, 40
BATCHES = 30


def seconds_per_batch() -> float:
    """Median wall seconds for GROUPS groups, from issuing the tickets to closing them."""
    with tempfile.TemporaryDirectory() as folder, LocalServer(Path(folder), memory_mb=512) as server:
        learner, actor, scorer = (Broker(server.url, "bench", role) for role in ("learner", "actor", "scorer"))
        learner.check()
        incarnation = learner.take_over()
        times = []
        for batch in range(BATCHES):
            orders = [_ticket(batch * GROUPS + i, incarnation) for i in range(GROUPS)]
            started = time.perf_counter()
            for order in orders:
                learner.issue(order)
            for delivery in actor.read("tickets", GROUPS, 100):
                actor.hand_over(delivery, rollout(delivery.ticket, TOKENS))
            taken = scorer.read("rollouts", GROUPS, 100)
            scorer.sigma_bar()
            for delivery in taken:
                scorer.hand_over(delivery, scored(delivery.message), 0.99)
            done = learner.read("scored", GROUPS, 100)
            learner.close(incarnation, [(d.ticket.id, 1, d.entry) for d in done])
            times.append(time.perf_counter() - started)
            learner.trim()
        return float(np.median(times))


def _ticket(id: int, incarnation: int):  # type: ignore[no-untyped-def]
    return ticket(
        "bench",
        id,
        completions=COMPLETIONS,
        incarnation=incarnation,
        prompt_ids=np.arange(PROMPT_TOKENS, dtype=np.int32),
    )


if __name__ == "__main__":
    print(seconds_per_batch())
