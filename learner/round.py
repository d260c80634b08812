"""One round of evaluation beside training: what came of each held-out problem, and the figure that they make. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common import accuracy
from common.schema import Scored


@dataclass(frozen=True)
class Answer:
    """What the samples of one problem came to."""

    correct: int
    truncated: int
    oldest_step: int
    newest_step: int
    """Of the policies that sampled it."""

    @classmethod
    def of(cls, group: Scored) -> Answer:
        completions = group.rollout.completions
        steps = [step for c in completions for _, _, step in c.versions] or [group.ticket.step]
        truncated = sum(c.finish == "length" for c in completions)
        return cls(group.statuses.count("correct"), truncated, min(steps), max(steps))


@dataclass(frozen=True)
class Figure:
    """What a finished round found."""

    step: int
    """That the round began at."""
    accuracy: float
    low: float
    high: float
    """pass@1, the mean over the sets, with its 95 % interval."""
    sets: dict[str, dict[str, Any]]
    """{name: {"accuracy", "low", "high", "problems"}}."""
    problems: int
    """That were evaluated, of all sets."""
    given_up: int
    """Problems without an answer: their tickets were dead-lettered or dropped. They count neither way."""
    samples: int
    """Of each problem."""
    truncated_share: float
    """Of the samples."""
    oldest_step: int
    newest_step: int
    """Of the policies that sampled: training goes on while a round runs."""
    seconds: float


@dataclass
class Round:
    """The round that runs. Its problems are those of all sets, one after the other; each has one ticket."""

    step: int
    first: int
    """Id of the first problem's ticket."""
    began: float
    """Seconds of the epoch."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """By ticket."""

    def figure(self, sizes: Mapping[str, int], samples: int, now: float) -> Figure | None:
        """What it found; None when no problem has an answer. `sizes`: problems of each set, in order."""
        ends = list(itertools.accumulate(sizes.values(), initial=self.first))
        shares: dict[str, list[float]] = {}
        for name, ids in zip(sizes, itertools.pairwise(ends), strict=True):
            if found := [self.answers[id].correct / samples for id in range(*ids) if id in self.answers]:
                shares[name] = found
        if not shares:
            return None
        means = {name: accuracy.mean(found, samples) for name, found in shares.items()}
        overall, answers = accuracy.macro(list(means.values())), list(self.answers.values())
        return Figure(
            step=self.step,
            accuracy=overall.value,
            low=overall.low,
            high=overall.high,
            sets={
                name: {"accuracy": mean.value, "low": mean.low, "high": mean.high, "problems": len(shares[name])}
                for name, mean in means.items()
            },
            problems=len(answers),
            given_up=ends[-1] - self.first - len(answers),
            samples=samples,
            truncated_share=sum(answer.truncated for answer in answers) / (samples * len(answers)),
            oldest_step=min(answer.oldest_step for answer in answers),
            newest_step=max(answer.newest_step for answer in answers),
            seconds=now - self.began,
        )


def is_due(step: int, last_step: int, every_steps: int, met: int | None) -> bool:
    """Whether a round is to begin at `step`: the first, the last, and every so many; `met` is the last one that was."""
    return every_steps > 0 and step != met and (step % every_steps == 0 or step == last_step)
