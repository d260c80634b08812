"""What a simulated run came to: throughput, staleness, and how busy each kind of process was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.simulate.actor import Actor, Group
from tests.bench.simulate.inputs import Plant


def steady(steps: int, max_staleness: int) -> slice:
    """Of the steps of a run those between the filling of its streams and the end, where fewer tickets are issued."""
    batches_in_flight = max_staleness + 1
    return slice(2 * batches_in_flight, steps - batches_in_flight - 1)


@dataclass(frozen=True)
class Result:
    """Rates and shares are those of the steady steps; nan when a run is too short to have any."""

    steps: int
    seconds: float
    """In all."""
    step_s: float
    """Wall time of a step."""
    tokens_per_s: float
    """Trained, prompts included."""
    staleness: dict[int, float]
    """Share of trained groups by staleness, of the whole run."""
    dropped_share: float
    """Of the groups that came to their end, dropped as stale; of the whole run."""
    in_flight_mean: float
    """Tickets, over the whole run."""
    sojourn_s: float
    """Mean seconds from issue to the end of the step that trained a group."""
    actors: float
    """Shares of the time: actors that sample,"""
    loading: float
    """prefill or load weights,"""
    scorers: float
    """scorers that score, those that wait for a shared core included,"""
    learner: float
    """the learner that trains."""
    sequences: float
    """Completions that an actor samples at once, on average."""
    redelivered: int

    @property
    def staleness_mean(self) -> float:
        return sum(value * share for value, share in self.staleness.items())


@dataclass
class _Mark:
    """Sums up to the end of a step."""

    time: float
    tokens: float
    training_s: float
    scoring_s: float
    sampling_s: float = 0.0
    stalled_s: float = 0.0
    sequence_s: float = 0.0


@dataclass
class Record:
    """Told everything as it happens."""

    staleness: Counter[int] = field(default_factory=Counter)
    dropped: int = 0
    redelivered: int = 0
    _marks: list[_Mark] = field(default_factory=list)
    _tokens: float = 0.0
    _training_s: float = 0.0
    _scoring_s: float = 0.0
    _began: float = 0.0
    _ticket_s: float = 0.0
    _in_flight: int = 0
    _since: float = 0.0
    _sojourns: list[float] = field(default_factory=list)

    def _count(self, now: float, in_flight: int) -> None:
        self._ticket_s += self._in_flight * (now - self._since)
        self._in_flight, self._since = in_flight, now

    def issue(self, now: float, in_flight: int) -> None:
        self._count(now, in_flight)

    def drop(self, now: float, in_flight: int) -> None:
        self._count(now, in_flight)
        self.dropped += 1

    def scored(self, seconds: float) -> None:
        self._scoring_s += seconds

    def begin_step(self, now: float, staleness: Sequence[int]) -> None:
        self._began = now
        self.staleness.update(staleness)

    def end_step(self, now: float, in_flight: int, batch: Sequence[Group], tokens: float) -> None:
        self._count(now, in_flight)
        self._training_s += now - self._began
        self._tokens += tokens
        self._sojourns += [now - group.issued_at for group in batch]
        self._marks.append(_Mark(now, self._tokens, self._training_s, self._scoring_s))

    def publish(self, now: float, actors: Sequence[Actor]) -> None:
        mark = self._marks[-1]
        for actor in actors:
            mark.sampling_s += actor.sampling_s
            mark.stalled_s += actor.stalled_s
            mark.sequence_s += actor.sequence_s

    def result(self, plant: Plant, now: float) -> Result:
        marks, trained = self._marks, sum(self.staleness.values())
        between = marks[steady(len(marks), plant.max_staleness)]
        first, last = (between[0], between[-1]) if len(between) > 1 else (_Mark(0, 0, 0, 0),) * 2
        span = last.time - first.time or float("nan")
        actor_s = span * plant.actors or float("nan")
        return Result(
            steps=len(marks),
            seconds=now,
            step_s=span / max(1, len(between) - 1),
            tokens_per_s=(last.tokens - first.tokens) / span,
            staleness={value: count / trained for value, count in sorted(self.staleness.items())},
            dropped_share=self.dropped / max(1, trained + self.dropped),
            in_flight_mean=self._ticket_s / now if now else float("nan"),
            sojourn_s=sum(self._sojourns) / max(1, len(self._sojourns)),
            actors=(last.sampling_s - first.sampling_s) / actor_s,
            loading=(last.stalled_s - first.stalled_s) / actor_s,
            scorers=(last.scoring_s - first.scoring_s) / (span * plant.scorers or float("nan")),
            learner=(last.training_s - first.training_s) / span,
            sequences=(last.sequence_s - first.sequence_s) / actor_s,
            redelivered=self.redelivered,
        )
