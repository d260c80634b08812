"""From single completions to whole groups. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from actors.engine import Sampled
from common.deliveries import Delivery
from common.lanes import Lane, Stage
from common.schema import Completion, Policy, Rollout

STEPS_PER_INCARNATION = 2**32


def version_key(policy: Policy) -> int:
    """One number for the engine's bookkeeping of (incarnation, step)."""
    return policy.incarnation * STEPS_PER_INCARNATION + policy.step


def completion_of(sampled: Sampled) -> Completion:
    """The wire's form of what the engine returned."""
    return Completion(
        text=sampled.text,
        ids=np.asarray(sampled.token_ids, dtype=np.int32),
        logprobs=np.asarray(sampled.logprobs, dtype=np.float32),
        versions=[(tokens, *divmod(key, STEPS_PER_INCARNATION)) for tokens, key in sampled.versions],
        finish=sampled.finish_reason,
        seconds=sampled.seconds,
    )


class Groups:
    """Groups being sampled, by the names of their deliveries: one leaves only when its last completion has ended."""

    def __init__(self, actor: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._actor = actor
        self._clock = clock
        self._open: dict[str, tuple[Delivery, float, dict[int, Completion]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self, delivery: Delivery) -> None:
        self._open[delivery.name] = (delivery, self._clock(), {})

    def give_up(self, name: str) -> Delivery | None:
        """Forgets a group, e.g. one whose lease was lost."""
        found = self._open.pop(name, None)
        return found[0] if found else None

    def of(self, lane: Lane) -> list[Delivery]:
        """The groups of a lane, the one that was started first at the front."""
        return [delivery for delivery, _, _ in self._open.values() if delivery.ticket.lane == lane]

    def all(self) -> list[Delivery]:
        """Every group, the one that was started first at the front."""
        return [delivery for delivery, _, _ in self._open.values()]

    def entries(self, stage: Stage) -> set[str]:
        return {delivery.entry for delivery, _, _ in self._open.values() if delivery.stage == stage}

    def add(self, sampled: Sampled) -> tuple[Delivery, Rollout] | None:
        """The finished group when this was its last completion. `request_id` is the delivery's name."""
        found = self._open.get(sampled.request_id)
        if found is None:  # of a group that was given up
            return None
        delivery, started, done = found
        done[sampled.index] = completion_of(sampled)
        ticket = delivery.ticket
        if len(done) < ticket.completions:
            return None
        del self._open[sampled.request_id]
        ordered = [done[i] for i in range(ticket.completions)]
        return delivery, Rollout(ticket, ordered, self._actor, self._clock() - started)
