"""Whether what a run has in its broker fits there: the arithmetic, with all completions as long as they may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import BrokerUnavailable
from common.server import needed_url
from common.settings import Sections
from common.weights.store import HIGH_WATER
from deploy.doctor.case import Case
from deploy.doctor.finding import Finding, error, ok, skipped, warning
from deploy.doctor.shapes import UNKNOWN, policy_shape
from deploy.doctor.sizes import PARTS_OF_WEIGHTS, group_bytes, published, shown
from learner.tickets import capacity

COPIES = 2
"""Of a group: as the actor delivered it and as it was scored. Both stay until a checkpoint is durable."""
HOSTS = "the host's memory"
"""What limits a server without maxmemory."""


@dataclass(frozen=True)
class Streams:
    """What the streams of a run may take, in bytes."""

    group: float
    tickets: int
    waiting: float
    """Trained groups that wait for a durable checkpoint."""

    @property
    def in_flight(self) -> float:
        return COPIES * self.tickets * self.group

    @property
    def together(self) -> float:
        return self.in_flight + self.waiting

    @property
    def sum(self) -> str:
        return (
            f"{self.tickets:,} tickets in flight x {COPIES} x {shown(self.group)} = {shown(self.in_flight)}; "
            f"with trained groups that wait for a checkpoint {shown(self.together)}"
        )


def streams(settings: Sections) -> Streams:
    """By the staleness bound: queues cannot grow beyond it."""
    s = settings.learner
    tickets = capacity(s.groups_per_step, s.max_staleness, s.over_sampling)
    if settings.eval.every_steps:
        tickets += settings.eval.in_flight
    one = group_bytes(settings)
    by_steps = s.checkpoint_every_steps * s.groups_per_step * (1 + s.over_sampling) * one
    by_bytes = s.checkpoint_every_mb * 2.0**20 + s.groups_per_step * one
    return Streams(one, tickets, COPIES * min(by_steps, by_bytes))


def broker_memory(case: Case) -> Iterator[Finding]:
    """For the streams, and for weights where actors take them from there."""
    settings = case.settings
    if case.url is None and case.everything:
        limit, used, whose = settings.broker.memory_mb * 2.0**20, 0.0, "broker.memory_mb"
    else:
        try:
            room = _room(case, needed_url(settings.broker.url))
        except BrokerUnavailable:
            yield skipped("broker.memory", "the broker does not answer, see above")
            return
        limit, used, whose = room
    yield from judged(streams(settings), limit, used, whose)
    if case.url is not None and settings.actor.weights_from == "broker":
        yield from _weights(case)


def judged(need: Streams, limit: float, used: float, whose: str) -> Iterator[Finding]:
    """`limit`: bytes that the server may take; `used`: those that it has taken. `whose`: the setting of the limit."""
    free = limit - used
    if not limit:
        yield skipped("broker.memory", f"the server does not say how much it may take; needed is {need.sum}")
        return
    found = f"{need.sum}; free of {whose} {shown(limit)}: {shown(free)}"
    remedy = f"raise {whose}, or lower learner.groups_per_step, learner.max_staleness or sampling.max_tokens"
    if need.in_flight > free:
        found += ". Long completions would fill it, and everybody would wait for everybody"
        yield error("broker.memory", found, remedy)
    elif need.together > HIGH_WATER * limit - used:
        found += f". Above {HIGH_WATER:.0%} the learner makes a checkpoint before it waits for groups"
        yield warning("broker.memory", found, f"{remedy}, or learner.checkpoint_every_mb")
    else:
        yield ok("broker.memory", found)
    if whose == HOSTS:
        found = "maxmemory is not set: the server grows until the kernel ends it"
        wanted = int((need.together + used) / HIGH_WATER / 2**20) + 1
        yield warning("broker.maxmemory", found, f"CONFIG SET maxmemory {wanted}mb, or more")


def _weights(case: Case) -> Iterator[Finding]:
    """Weights give way to streams: the learner carries none while there is no room for them."""
    settings, url = case.settings, case.settings.weights.url or case.url or ""
    shape = policy_shape(case)
    if shape is None:
        yield skipped("weights.memory", UNKNOWN)
        return
    limit, used, whose = _room(case, url)
    one = published(settings, shape)
    need, free = PARTS_OF_WEIGHTS * one, HIGH_WATER * limit - used
    if settings.weights.url is None:
        free -= streams(settings).together
    found = f"{PARTS_OF_WEIGHTS} x {shown(one)} of weights = {shown(need)}; beside the streams {shown(free)}"
    remedy = f"raise {whose}, or name another broker in weights.url"
    yield ok("weights.memory", found) if need <= free else error("weights.memory", found, remedy)


def _room(case: Case, url: str) -> tuple[float, float, str]:
    """(limit, used, what sets the limit) of the server with the least room."""
    found = [
        (
            info.get("maxmemory") or info.get("total_system_memory") or 0,
            info["used_memory"],
            bool(info.get("maxmemory")),
        )
        for info in case.examiner(url).servers()
    ]
    limit, used, set_by_it = min(found, key=lambda one: one[0] - one[1])
    return float(limit), float(used), "maxmemory" if set_by_it else "the host's memory"
