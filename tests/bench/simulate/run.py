"""The pipeline: tickets, actors, rollouts, scorers, scored groups, learner, new weights; by the rules of the system.

Of those the real ones are used: how many tickets may be in flight (`learner.tickets.capacity`). As in the system,
streams are first in, first out; who asks takes as many as it has room for; the learner does one thing at a time: it
issues, gathers, sweeps what is too old, trains, publishes, commits; replacements of dropped groups are new tickets.

What is left out: the latency of the broker (a millisecond, where stages take seconds), tickets that are dead-lettered,
groups that are evaluated beside training, and what a full KV cache preempts.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from learner.tickets import capacity
from tests.bench.simulate.actor import Actor, Group
from tests.bench.simulate.events import Clock, Cores
from tests.bench.simulate.inputs import Plant, Times, Work
from tests.bench.simulate.result import Record, Result

TOGETHER = 4096  # groups whose lengths are drawn at once


def simulate(times: Times, work: Work, plant: Plant, steps: int, seed: int = 0, until_s: float = 1e9) -> Result:
    """`steps` steps of the learner, or as many as come about: without actors there are none."""
    pipeline = _Pipeline(times, work, plant, steps, seed)
    pipeline.begin()
    pipeline.clock.run(lambda: pipeline.step >= steps, until_s)
    return pipeline.record.result(plant, pipeline.clock.now)


class _Pipeline:
    def __init__(self, times: Times, work: Work, plant: Plant, steps: int, seed: int) -> None:
        self.clock = Clock()
        self.record = Record()
        self.step = 0
        self._times, self._work, self._plant, self._steps = times, work, plant, steps
        self._chance = np.random.default_rng(seed)
        self._cores = Cores(self.clock, plant.shared_cores)
        self._fresh: deque[list[float]] = deque()
        self._issued = self._in_flight = 0
        self._tickets: deque[Group] = deque()
        self._rollouts: deque[Group] = deque()
        self._scored: deque[Group] = deque()
        self._ready: list[Group] = []
        self._training = False
        slots = plant.groups_in_flight
        self._actors = [Actor(self.clock, times, work.prompt_tokens, slots, self._sampled) for _ in range(plant.actors)]
        # Those with room, the longest waiting first; a dict is an ordered set.
        self._hungry = dict.fromkeys(self._actors)
        self._idle_scorers = plant.scorers

    def begin(self) -> None:
        if self._plant.kill_every_s < np.inf:
            for actor in self._actors:
                self._doom(actor)
        self._turn()

    # The learner

    def _turn(self) -> None:
        """Its loop, up to where it trains or waits for groups."""
        size = self._plant.groups_per_step
        while self.step < self._steps and not self._training:
            self._issue()
            self._ready += [self._scored.popleft() for _ in range(min(size - len(self._ready), len(self._scored)))]
            if len(self._ready) < size:
                return
            fresh = [group for group in self._ready if self.step - group.version <= self._plant.max_staleness]
            for _ in range(len(self._ready) - len(fresh)):
                self._in_flight -= 1
                self.record.drop(self.clock.now, self._in_flight)
            self._ready = fresh
            if len(fresh) == size:
                self._train()

    def _issue(self) -> None:
        """As `learner.issuer`: up to the bound, and no more than the remaining steps can use."""
        plant = self._plant
        bound = capacity(plant.groups_per_step, plant.max_staleness, plant.over_sampling)
        usable = (self._steps - self.step) * plant.groups_per_step
        for _ in range(min(bound, usable) - self._in_flight):
            lengths = self._lengths()
            tokens = sum(lengths) + self._work.completions * self._work.prompt_tokens
            self._tickets.append(Group(self._issued, lengths, tokens, self.clock.now))
            self._issued += 1
            self._in_flight += 1
            self.record.issue(self.clock.now, self._in_flight)
        self._deal()

    def _lengths(self) -> list[float]:
        if not self._fresh:
            self._fresh.extend(self._work.lengths(TOGETHER, self._chance).tolist())
        return self._fresh.popleft()

    def _train(self) -> None:
        self._training = True
        batch, self._ready = self._ready, []
        times = self._times
        tokens = sum(group.tokens for group in batch)
        books_s = times.learner_group_s * len(batch)
        train_s = times.train_step_s + times.train_token_s * tokens / self._plant.ranks
        self.record.begin_step(self.clock.now, [self.step - group.version for group in batch])

        def trained() -> None:
            self.step += 1
            self._in_flight -= len(batch)
            self.record.end_step(self.clock.now, self._in_flight, batch, tokens)
            self._cores.run(times.publish_s, published)

        def published() -> None:
            for actor in self._actors:
                actor.load(self.step)
            self.record.publish(self.clock.now, self._actors)
            due = self.step % self._plant.checkpoint_every_steps == 0
            self._cores.run(times.checkpoint_s, committed) if due else committed()

        def committed() -> None:
            self._training = False
            self._turn()

        self._cores.run(books_s + train_s, trained)

    # Actors

    def _deal(self) -> None:
        while self._tickets and self._hungry:
            actor = next(iter(self._hungry))
            del self._hungry[actor]
            taken = [self._tickets.popleft() for _ in range(min(actor.room, len(self._tickets)))]
            if taken:
                actor.start(taken)
                if actor.room:
                    self._hungry[actor] = None

    def _sampled(self, actor: Actor, group: Group) -> None:
        self._rollouts.append(group)
        self._score()
        self._hungry.setdefault(actor)
        self._deal()

    def _doom(self, actor: Actor) -> None:
        plant = self._plant

        def die() -> None:
            lost = actor.die()
            self.record.redelivered += len(lost)
            self._hungry.pop(actor, None)
            self.clock.at(self.clock.now + plant.claim_after_s, lambda: claimed(lost))
            self.clock.at(self.clock.now + plant.restart_s, rise)

        def claimed(lost: list[Group]) -> None:
            self._tickets.extendleft(reversed(lost))
            self._deal()

        def rise() -> None:
            actor.rise()
            self._hungry[actor] = None
            self._deal()
            self._doom(actor)

        self.clock.at(self.clock.now + self._chance.exponential(plant.kill_every_s), die)

    # Scorers

    def _score(self) -> None:
        while self._idle_scorers and self._rollouts:
            taken = [self._rollouts.popleft() for _ in range(min(self._plant.batch_groups, len(self._rollouts)))]
            times, began = self._times, self.clock.now
            self._idle_scorers -= 1
            verify_s = times.verify_completion_s * self._work.completions * len(taken)
            score_s = times.score_batch_s + times.score_token_s * sum(group.tokens for group in taken)

            def done(taken: list[Group] = taken, began: float = began) -> None:
                self.record.scored(self.clock.now - began)
                self._idle_scorers += 1
                self._scored.extend(taken)
                self._score()
                self._turn()

            self._cores.run(verify_s + score_s, done)
