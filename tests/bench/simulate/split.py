"""How to divide devices among actors, scorers and learner ranks: by arithmetic first, from there by simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from learner.tickets import capacity
from tests.bench.simulate.inputs import Plant, Times, Work
from tests.bench.simulate.result import Result
from tests.bench.simulate.run import simulate

MOVES = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)]  # of a device: from and to ranks, actors, scorers


@dataclass(frozen=True)
class Devices:
    """How many there are, and what one process of each kind takes. Example: `Devices(total=64, actor=2)`."""

    total: int
    actor: int = 1
    """`actor.tensor_parallel`."""
    scorer: int = 1
    least_ranks: int = 1
    """Fewer have no room for weights and optimizer."""

    def splits(self) -> Iterator[tuple[int, int, int]]:
        """(actors, scorers, ranks), with as many ranks as the others leave."""
        for actors in range(1, self.total // self.actor + 1):
            for scorers in range(1, (self.total - actors * self.actor) // self.scorer + 1):
                ranks = self.total - actors * self.actor - scorers * self.scorer
                if ranks >= self.least_ranks:
                    yield actors, scorers, ranks


def stage_seconds(times: Times, work: Work, plant: Plant) -> dict[str, float]:
    """Seconds a step that each kind of process works, if it never waits: what the longest takes, no step can beat.

    An actor is taken to have all its share of the tickets in flight running. In truth it runs dry between two batches,
    so this is what it does at best; what is lost is the simulation's business.
    """
    groups, mean, square = plant.groups_per_step, *work.moments
    in_flight = capacity(groups, plant.max_staleness, plant.over_sampling) / max(1, plant.actors)
    running = work.completions * min(plant.groups_in_flight, in_flight)
    context = running * (work.prompt_tokens + square / (2 * mean))
    engine_steps = groups * work.completions * mean / running / max(1, plant.actors)
    starts_s = times.start_group_s * groups / max(1, plant.actors)
    tokens = groups * work.completions * (work.prompt_tokens + mean)
    scored_s = tokens * times.score_token_s + groups * work.completions * times.verify_completion_s
    batches = groups / min(plant.batch_groups, groups)
    books_s = times.learner_group_s * groups + times.publish_s + times.checkpoint_s / plant.checkpoint_every_steps
    return {
        "actors": engine_steps * times.decode_s(running, context)
        + starts_s
        + times.load_s
        + times.recompute_token_s * context,
        "scorers": (scored_s + batches * times.score_batch_s) / max(1, plant.scorers),
        "learner": times.train_step_s + times.train_token_s * tokens / plant.ranks + books_s,
    }


def growing(times: Times, work: Work, plant: Plant, actors: int) -> Plant:
    """`plant` with so many actors, and scorers and ranks enough not to be what they wait for; the batch as it is."""
    one = stage_seconds(times, work, replace(plant, actors=1, scorers=1, ranks=1))
    tokens_s = one["learner"] - stage_seconds(times, work, replace(plant, ranks=10**9))["learner"]
    scorers, ranks = (math.ceil(actors * need / one["actors"]) for need in (one["scorers"], tokens_s))
    return _with(plant, actors, scorers, ranks)


def search(times: Times, work: Work, plant: Plant, devices: Devices, steps: int) -> list[tuple[Plant, Result]]:
    """Divisions of `devices`, the fastest first, each simulated for `steps` steps.

    From the best by arithmetic uphill, in strides that halve when none leads further. All see the same prompts with the
    same lengths, so two that differ by little can be compared.
    """
    tried: dict[tuple[int, int], tuple[Plant, Result]] = {}
    ranks = {(actors, scorers): ranks for actors, scorers, ranks in devices.splits()}

    def step_s(place: tuple[int, int]) -> float:
        if place not in ranks:
            return math.inf
        if place not in tried:
            some = _with(plant, *place, ranks[place])
            tried[place] = some, simulate(times, work, some, steps)
        return tried[place][1].step_s

    def longest(place: tuple[int, int]) -> float:
        return max(stage_seconds(times, work, _with(plant, *place, ranks[place])).values())

    here, stride = min(ranks, key=longest), max(1, devices.total // 16)
    while stride:
        moves = [(here[0] + stride * x, here[1] + stride * y) for x, y in MOVES]
        best = min(moves, key=step_s)
        if step_s(best) < step_s(here):
            here = best
        else:
            stride //= 2
    return sorted(tried.values(), key=lambda pair: pair[1].step_s)


def _with(plant: Plant, actors: int, scorers: int, ranks: int) -> Plant:
    """An actor takes no more than its share of the tickets in flight: else the first to ask leaves others without."""
    most = capacity(plant.groups_per_step, plant.max_staleness, plant.over_sampling)
    share = -(-most // actors)
    slots = min(plant.groups_in_flight, share)
    return replace(plant, actors=actors, scorers=scorers, ranks=ranks, groups_in_flight=slots)


def cells(
    times: Times, work: Work, plant: Plant, devices: Devices, steps: int, most: int = 12
) -> list[tuple[Plant, Result]]:
    """All divisions, simulated; of many, those on a grid of about `most` x `most`."""
    splits = list(devices.splits())
    kept = [_spread(sorted({split[place] for split in splits}), most) for place in (0, 1)]
    plants = [_with(plant, *split) for split in splits if split[0] in kept[0] and split[1] in kept[1]]
    return [(some, simulate(times, work, some, steps)) for some in plants]


def _spread(values: list[int], most: int) -> set[int]:
    """`most` of sorted values, denser where they are small."""
    if len(values) <= most:
        return set(values)
    return {values[round((len(values) - 1) * (i / (most - 1)) ** 1.5)] for i in range(most)}
