"""An actor with continuous batching, from one end of a group to the next, without a look at single tokens.

All running completions gain a token with each engine step, so one number, the tokens sampled since the start, says how
far each of them is. Between two ends nothing but the caches grows; the seconds for m such steps have a closed form.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.simulate.events import Clock, Event
from tests.bench.simulate.inputs import Times


@dataclass(eq=False)
class Group:
    """A ticket on its way, with what is decided about it: the lengths of its completions."""

    id: int
    lengths: list[float]
    tokens: float
    """Prompts and completions, what the reward model reads and the learner trains on."""
    issued_at: float
    version: int = 0
    """Of the policy that began it: its oldest tokens'."""
    last: float = 0.0
    """Where its longest completion ends, in the actor's tokens."""


class Actor:
    """`room` groups fit, `start` takes some, `load` is an announced policy; `finished(actor, group)` tells an end."""

    def __init__(
        self, clock: Clock, times: Times, prompt_tokens: float, slots: int, finished: Callable[[Actor, Group], None]
    ) -> None:
        self._clock = clock
        self._times = times
        self._prompt = prompt_tokens
        self._slots = slots
        self._finished = finished
        self._tokens = 0.0
        self._at = 0.0  # up to when `_tokens` is worked out; later than now while it prefills or loads
        self._ends: list[tuple[float, float]] = []  # (where it ends, its length) of running completions, in order
        self._groups: list[tuple[float, int, Group]] = []  # by their last end
        self._context = 0.0
        self._next: Event | None = None
        self._loading = False
        self._newest = 0
        self.version = 0
        self.alive = True
        self.sampling_s = self.stalled_s = self.sequence_s = 0.0
        """In all: seconds with completions running, of prefill and of new weights; running completions x seconds."""

    @property
    def room(self) -> int:
        return self._slots - len(self._groups) if self.alive else 0

    def start(self, groups: list[Group]) -> None:
        """They run from now on, after their prefill."""
        self.advance()
        for group in groups:
            group.version = self.version
            group.last = self._tokens + max(group.lengths)
            insort(self._groups, (group.last, group.id, group))
            for length in group.lengths:
                insort(self._ends, (self._tokens + length, length))
        self._context += self._prompt * sum(len(group.lengths) for group in groups)
        self._stall(self._times.start_group_s * len(groups))
        self._plan()

    def load(self, version: int) -> None:
        """Follows an announcement: now, or, while it loads an older one, an engine step after that."""
        self._newest = version
        if self.alive and not self._loading:
            self.advance()
            self._loading, self.version = True, version
            self._stall(self._times.load_s + self._times.recompute_token_s * self._context)
            again = self._at + self._times.decode_s(len(self._ends), self._context)
            self._clock.at(again, self._loaded)
            self._plan()

    def _loaded(self) -> None:
        self._loading = False
        if self._newest > self.version:
            self.load(self._newest)

    def die(self) -> list[Group]:
        """What it held, all to be done again."""
        self.advance()
        lost = [group for _, _, group in self._groups]
        self._ends, self._groups, self._context, self.alive = [], [], 0.0, False
        self._plan()
        return lost

    def rise(self) -> None:
        self.alive = True
        self.load(self._newest)

    def _stall(self, seconds: float) -> None:
        self._at = max(self._at, self._clock.now) + seconds
        self.stalled_s += seconds

    def _plan(self) -> None:
        if self._next:
            self._next.cancel()
        self._next = (
            self._clock.at(max(self._at, self._clock.now) + self._until(self._groups[0][0]), self._end)
            if self._groups
            else None
        )

    def _end(self) -> None:
        """The next group has ended, by the same arithmetic that planned it."""
        target = self._groups[0][0]
        self._walk(target, math.inf)
        self._at = self._clock.now
        _, _, group = self._groups.pop(0)
        self._plan()
        self._finished(self, group)

    def _until(self, target: float) -> float:
        """Seconds until `_tokens` is `target`."""
        tokens, context, running, seconds = self._tokens, self._context, len(self._ends), 0.0
        for end, length in self._ends:
            if end > target:
                break
            if end > tokens:
                seconds += self._span(end - tokens, running, context)
                context += running * (end - tokens)
                tokens = end
            running -= 1
            context -= self._prompt + length
        return seconds + (self._span(target - tokens, running, context) if target > tokens else 0.0)

    def advance(self) -> None:
        """Up to now."""
        now = self._clock.now
        if now <= self._at:
            return
        if self._ends:
            self._walk(math.inf, now - self._at)
        self._at = now

    def _walk(self, target: float, seconds: float) -> None:
        """Lets completions run to `target` tokens, or for so many seconds, whichever comes first."""
        done, running, left = 0, len(self._ends), seconds
        for end, length in self._ends:
            if end > target:
                break
            if end > self._tokens:
                span = self._span(end - self._tokens, running, self._context)
                if span > left:
                    break
                self._gain(end - self._tokens, running, span)
                left -= span
            self._context -= self._prompt + length
            done, running = done + 1, running - 1
        del self._ends[:done]
        if running and target == math.inf:
            self._gain(self._steps(left, running), running, left)

    def _gain(self, tokens: float, running: int, seconds: float) -> None:
        self._tokens += tokens
        self._context += running * tokens
        self.sampling_s += seconds
        self.sequence_s += running * seconds

    def _span(self, steps: float, running: int, context: float) -> float:
        """Seconds of `steps` engine steps while nothing ends: in the i-th, context + i * running tokens are cached."""
        return steps * self._times.decode_s(running, context + running * (steps - 1) / 2)

    def _steps(self, seconds: float, running: int) -> float:
        """Steps in so many seconds: the inverse of `_span`."""
        half = self._times.decode_context_s * running / 2
        first = self._times.decode_s(running, self._context) - half
        return 2 * seconds / (first + math.sqrt(first**2 + 4 * half * seconds))
