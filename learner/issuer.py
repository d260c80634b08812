"""Issues tickets: new ones up to the staleness bound, and again what the broker has lost."""

from __future__ import annotations

from collections.abc import Container, Sequence

import structlog

from common.schema import Ticket
from common.settings import Sections
from common.streams import Broker
from common.tasks import Problem
from learner.ledger import Ledger
from learner.render import Renderer
from learner.tickets import PromptOrder, capacity

ISSUE_TOGETHER = 64  # tickets a round trip: one each costs more than packing them

log = structlog.get_logger("learner")


class Issuer:
    """Turns problems into tickets of the seeded order and books them in the ledger. Both calls may raise BrokerFull."""

    def __init__(self, settings: Sections, broker: Broker, renderer: Renderer, problems: Sequence[Problem]) -> None:
        self._settings = settings
        self._broker = broker
        self._renderer = renderer
        self._problems = problems
        self._order = PromptOrder(len(problems), settings.run.seed)

    def issue(self, ledger: Ledger, incarnation: int, step: int) -> None:
        """Tickets up to the staleness bound, and no more than the remaining steps can use."""
        o = self._settings.learner
        remaining = (self._settings.run.steps - step) * o.groups_per_step
        wanted = min(capacity(o.groups_per_step, o.max_staleness), remaining)
        missing = range(ledger.issued, ledger.issued + wanted - len(ledger.in_flight()))
        for start in range(0, len(missing), ISSUE_TOGETHER):
            ids = missing[start : start + ISSUE_TOGETHER]
            self._broker.issue_together([self._ticket(id, 1, incarnation, step) for id in ids])
            for id in ids:
                ledger.issue(id)

    def reissue_lost(self, ledger: Ledger, known: Container[int], incarnation: int, step: int) -> None:
        """Tickets in flight that nobody knows, neither the broker nor the learner: the same ids, the next attempts."""
        lost = [id for id in ledger.in_flight() if id not in known]
        for id in lost:
            self._broker.issue(self._ticket(id, ledger.reissue(id), incarnation, step))
        if lost:
            log.warning("tickets were lost by the broker and issued again", count=len(lost), ids=lost[:10])

    def _ticket(self, id: int, attempt: int, incarnation: int, step: int) -> Ticket:
        problem = self._problems[self._order.row(id)]
        sampling = self._settings.sampling
        return Ticket(
            run=self._broker.run,
            id=id,
            attempt=attempt,
            question=problem.question,
            gold=problem.answer,
            meta=problem.meta,
            prompt_ids=self._renderer.prompt_ids(problem.question),
            completions=sampling.completions,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            incarnation=incarnation,
            step=step,
        )
