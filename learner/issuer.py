"""Issues the tickets of training, up to the staleness bound."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from common.errors import CheckpointError
from common.schema import Scored
from common.settings import Sections
from common.streams import Broker
from common.tasks import Problem
from learner.curriculum import ByDifficulty
from learner.issuing import Issuing
from learner.ledger import Ledger
from learner.render import Renderer
from learner.tickets import PromptOrder, capacity


class Issuer(Issuing):
    """Turns problems into tickets of the seeded order."""

    def __init__(self, settings: Sections, broker: Broker, renderer: Renderer, problems: Sequence[Problem]) -> None:
        s = settings.sampling
        super().__init__(broker, renderer, "train", (s.completions, s.temperature, s.top_p, s.max_tokens))
        self._settings = settings
        self.waits_for_a_plan = False
        """Whether the next tickets wait for a checkpoint that has their epoch."""
        self._problems = problems
        questions, seed = [problem.question for problem in problems], settings.run.seed
        self._curriculum = ByDifficulty(questions, seed) if settings.data.order == "difficulty" else None
        self._order = self._curriculum or PromptOrder(len(problems), seed)

    def issue(self, ledger: Ledger, incarnation: int, step: int) -> None:
        """Tickets up to the bound, and no more than the remaining steps can use or than are planned.

        Raises BrokerFull.
        """
        o = self._settings.learner
        remaining = (self._settings.run.steps - step) * o.groups_per_step
        wanted = min(capacity(o.groups_per_step, o.max_staleness, o.over_sampling), remaining)
        ids = range(ledger.issued, ledger.issued + wanted - len(ledger.in_flight()))
        planned = sum(1 for _ in takewhile(self._order.planned, ids))
        self.waits_for_a_plan = planned < len(ids)
        self.put_up(ledger, planned, incarnation, step)

    def met(self, group: Scored) -> None:
        """Takes what a group says of its prompt's difficulty."""
        if self._curriculum:
            right = sum(status == "correct" for status in group.statuses)
            self._curriculum.met(group.ticket.question, right / len(group.statuses))

    def dump(self, ledger: Ledger) -> bytes | None:
        """The order's state for a checkpoint; None where it has none."""
        oldest = min(ledger.in_flight(), default=ledger.issued)
        return self._curriculum.dump(oldest) if self._curriculum else None

    def saved(self) -> None:
        """What was dumped last is in a durable checkpoint."""
        if self._curriculum:
            self._curriculum.saved()

    def restore(self, prompts: bytes | None) -> None:
        """What `dump` gave to a checkpoint. Raises CheckpointError where it does not fit data.order or the prompts."""
        if (prompts is None) != (self._curriculum is None):
            raise CheckpointError(
                f"data.order = {self._settings.data.order!r}, the checkpoint is of a run with the other; set it back"
            )
        if self._curriculum and prompts is not None:
            try:
                self._curriculum.restore(prompts)
            except ValueError as error:
                raise CheckpointError(f"{error}; resume with the same data") from error

    def _problem(self, id: int) -> Problem:
        return self._problems[self._order.row(id)]
