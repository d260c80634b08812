"""Which groups of a reward log are shown: the latest, a sample of all, and some of whatever is rare."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any

from common.untrusted import figure
from deploy.report.group_rows import slim
from deploy.report.steps import Steps

LATEST = 150
SAMPLE = 200
"""Of all, each as likely as any other."""
RARE = 20
"""Of each outcome but "trained" and of each status that is neither correct nor wrong."""
MOST_KINDS = 32
"""Of what is rare; there are six such statuses and some ten reasons to drop a group."""
USUAL = frozenset({"trained", "shadow", "correct", "wrong"})


class Reservoir:
    """`most` of all that it was given, each as likely as any other."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._random = most, random.Random(seed)  # noqa: S311 - a sample, no secret
        self._seen = 0
        self.held: list[Any] = []

    def place(self) -> int | None:
        """Where the next one goes; None where it is left out."""
        self._seen += 1
        if len(self.held) < self._most:
            self.held.append(None)
            return len(self.held) - 1
        place = self._random.randrange(self._seen)
        return place if place < self._most else None


class Kept:
    """Is given every line of a reward log, in its order; holds a bounded number of them, their texts shortened."""

    def __init__(self) -> None:
        self.count = 0
        self.outcomes: Counter[str] = Counter()
        self.malformed = 0
        """Objects that are no line of a reward log."""
        self._latest: deque[tuple[int, dict[str, Any]]] = deque(maxlen=LATEST)
        self._sample = Reservoir(SAMPLE, 0)
        self._rare: dict[str, Reservoir] = {}
        self._verdicts = ByVerdict()

    def add(self, line: Mapping[str, Any]) -> None:
        group = slim(line)
        if group is None:
            self.malformed += 1
            return
        self.count += 1
        outcome = group["outcome"]
        self.outcomes[outcome if outcome in self.outcomes or len(self.outcomes) < MOST_KINDS else "others"] += 1
        numbered = (self.count, group)
        self._latest.append(numbered)
        for reservoir in (self._sample, *self._rare_ones(group)):
            place = reservoir.place()
            if place is not None:
                reservoir.held[place] = numbered
        if outcome in ("trained", "shadow"):
            self._verdicts.add(group)

    def chosen(self) -> Iterator[dict[str, Any]]:
        """What is shown, in the order in which it may go: the latest, what is rare, the sample; each once."""
        said: set[int] = set()
        rare = [one for reservoir in self._rare.values() for one in reservoir.held]
        for part in (self._latest, rare, self._sample.held):
            for number, group in sorted(part, key=lambda one: -one[0]):
                if number not in said:
                    said.add(number)
                    yield {"number": number, **group}

    def rewards(self) -> Steps:
        """Mean reward of right and of wrong completions by step: `reward_right`, `reward_wrong`."""
        return self._verdicts.steps()

    def _rare_ones(self, group: Mapping[str, Any]) -> list[Reservoir]:
        found = []
        for kind in {group["outcome"], *(one["status"] for one in group["completions"])} - USUAL:
            if kind not in self._rare and len(self._rare) < MOST_KINDS:
                self._rare[kind] = Reservoir(RARE, len(self._rare) + 1)
            if kind in self._rare:
                found.append(self._rare[kind])
        return found


class ByVerdict:
    """Sums of rewards by step and verdict; of a step that was done again the last ones."""

    def __init__(self) -> None:
        self._done = Steps()
        self._step: float | None = None
        self._sums: dict[str, list[float]] = {}

    def add(self, group: Mapping[str, Any]) -> None:
        if group["step"] != self._step:
            self._close()
            self._step, self._sums = group["step"], {}
        for one in group["completions"]:
            if (reward := figure(one["reward"])) is not None:
                sums = self._sums.setdefault("right" if one["status"] == "correct" else "wrong", [0.0, 0.0])
                sums[0] += reward
                sums[1] += 1

    def _close(self) -> None:
        if self._step is not None:
            means = {f"reward_{verdict}": total / count for verdict, (total, count) in self._sums.items()}
            self._done.add(means, self._step)

    def steps(self) -> Steps:
        """The step at hand is in it as far as it came."""
        self._close()
        return self._done
