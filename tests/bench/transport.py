"""What moving a batch through the broker costs: packing, Redis, unpacking, with nothing else running.

One step's groups walk all stages, one worker a stage, on a real server; the seconds that this takes are
compared with those of a training step of the default job, measured by `tests.bench.pipeline`.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.schema import Ticket
from common.server import LocalServer
from common.streams import Broker
from tests.make import rollout, scored, ticket

BATCHES = 30


@dataclass(frozen=True)
class Batch:
    """What one step trains on. Example: `Batch(groups=32, completions=8, tokens=40)`."""

    groups: int = 32
    completions: int = 8
    prompt_tokens: int = 40
    tokens: int = 40
    """Of each completion."""
    scorer_groups: int = 16
    """Groups that a scorer takes and hands over together."""
    question: str = "1 + 1 = ?"
    meta: dict[str, str] = field(default_factory=dict)


def seconds_per_batch(size: Batch) -> float:
    """Median wall seconds for one batch, from issuing the tickets to closing them."""
    with tempfile.TemporaryDirectory() as folder, LocalServer(Path(folder), memory_mb=512) as server:
        learner, actor, scorer = (Broker(server.url, "bench", role) for role in ("learner", "actor", "scorer"))
        learner.check()
        incarnation = learner.take_over()
        times = []
        for batch in range(BATCHES):
            orders = [_ticket(size, batch * size.groups + i, incarnation) for i in range(size.groups)]
            started = time.perf_counter()
            learner.issue_together(orders)
            for delivery in actor.read("tickets", size.groups, 100):
                actor.hand_over(delivery, rollout(delivery.ticket, size.tokens))
            taken = scorer.read("rollouts", size.groups, 100)
            for start in range(0, size.groups, size.scorer_groups):
                scorer.sigma()
                groups = [(d, scored(d.message)) for d in taken[start : start + size.scorer_groups]]
                scorer.hand_over_together(groups, 0.99)
            done = learner.read("scored", size.groups, 100)
            learner.close(incarnation, [(d.ticket.id, 1, d.entry) for d in done])
            times.append(time.perf_counter() - started)
            learner.trim()
        return float(np.median(times))


def _ticket(size: Batch, id: int, incarnation: int) -> Ticket:
    return ticket(
        "bench",
        id,
        question=size.question,
        meta=size.meta,
        completions=size.completions,
        incarnation=incarnation,
        prompt_ids=np.arange(size.prompt_tokens, dtype=np.int32),
    )


if __name__ == "__main__":
    print(seconds_per_batch(Batch()))
