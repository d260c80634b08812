"""The held-out problems as tickets of evaluation: each round asks all of them once, set by set."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import structlog

from common import problems
from common.errors import DataError
from common.schema import Scored
from common.settings import Sections
from common.streams import Broker
from common.tasks import Problem
from learner.issuing import Issuing
from learner.render import Renderer

log = structlog.get_logger("learner")


class Questions(Issuing):
    """Their tickets; `first` is the id of the first problem's in the round that runs."""

    first = 0

    def __init__(self, settings: Sections, broker: Broker, renderer: Renderer) -> None:
        o = settings.eval
        max_tokens = o.max_tokens or settings.sampling.max_tokens
        super().__init__(broker, renderer, "eval", (o.samples, o.temperature, o.top_p, max_tokens))
        sets = dict(held_out(settings, renderer)) if o.every_steps else {}
        self._problems = [problem for found in sets.values() for problem in found]
        self.sizes = {name: len(found) for name, found in sets.items()}
        """Problems of each set."""

    @property
    def ids(self) -> range:
        """Of the round's tickets."""
        return range(self.first, self.first + len(self._problems))

    @property
    def checksum(self) -> int:
        """Of everything that makes two rounds comparable: the problems, and how they are sampled."""
        asked = [(problem.question, problem.answer) for problem in self._problems]
        return zlib.crc32(repr((self.sizes, asked, self._sampled)).encode(errors="replace"))

    def ordered(self, group: Scored, step: int) -> bool:
        """Whether a group answers what the round of `step` asked under its id, sampled as it was to be."""
        ticket = group.ticket
        asked = self._problem(ticket.id)
        return (
            ticket.id in self.ids
            and (ticket.step, ticket.question, ticket.gold) == (step, asked.question, asked.answer)
            and (ticket.completions, ticket.temperature, ticket.top_p, ticket.max_tokens) == self._sampled
        )

    def _problem(self, id: int) -> Problem:
        return self._problems[(id - self.first) % len(self._problems)]


def held_out(settings: Sections, renderer: Renderer) -> Iterator[tuple[str, list[Problem]]]:
    """The sets of eval.data, each by its name, without what is longer than data.max_prompt_tokens.

    Raises DataError for a set of which nothing is left.
    """
    limit = settings.data.max_prompt_tokens
    for name, (numbered, bad) in problems.held_out(settings).items():
        fitting = [problem for _, problem in numbered if len(renderer.prompt_ids(problem.question)) <= limit]
        if not fitting:
            raise DataError(f"no prompt of eval.data, {name}, has data.max_prompt_tokens = {limit} or fewer; raise it")
        if left_out := len(bad) + len(numbered) - len(fitting):
            log.warning("left out of evaluation: bad lines, or too long", set=name, count=left_out, kept=len(fitting))
        yield name, fitting
