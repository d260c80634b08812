"""Which prompt a ticket means, and how many tickets may be in flight. Pure."""

from __future__ import annotations

import math
import random


class PromptOrder:
    """The seeded, endless order of prompts: ticket id -> row, a new shuffle in every epoch."""

    def __init__(self, rows: int, seed: int) -> None:
        if rows < 1:
            raise ValueError("no prompts")
        self._rows = rows
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def row(self, ticket_id: int) -> int:
        """Row of a ticket; the same in every attempt and after every restart."""
        epoch, place = divmod(ticket_id, self._rows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = list(range(self._rows))
            random.Random(f"{self._seed}/{epoch}").shuffle(self._order)  # noqa: S311 - no secret
        return self._order[place]

    def planned(self, ticket_id: int) -> bool:
        """Whether the ticket may be issued: its row depends on the seed alone, so always."""
        return True


def capacity(groups_per_step: int, max_staleness: int, over_sampling: float = 0.0) -> int:
    """Most tickets in flight, the batch in training included.

    Without `over_sampling` a ticket issued at step s waits for at most `capacity - groups_per_step` groups, that is
    max_staleness batches: staleness stays within its bound, queues are bounded, and back-pressure needs nothing else.
    With it that share of more is in flight, and what comes too late is dropped as stale.
    """
    return math.ceil((max_staleness + 1) * groups_per_step * (1 + over_sampling))


def most_between_commits(
    groups_per_step: int, max_staleness: int, checkpoint_every_steps: int, over_sampling: float = 0.0
) -> int:
    """Most tickets that a learner issues between two checkpoints: those in flight, those trained in each step, and as
    many again for dropped ones."""
    in_flight = capacity(groups_per_step, max_staleness, over_sampling)
    return 2 * (in_flight + checkpoint_every_steps * math.ceil(groups_per_step * (1 + over_sampling)))
