"""Puts the tickets of one lane up, and up again what the broker has lost, and books them in the lane's ledger."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable

import structlog

from common.lanes import Lane
from common.schema import Ticket
from common.streams import Broker
from common.tasks import Problem
from learner.ledger import Ledger
from learner.render import Renderer

ISSUE_TOGETHER = 64  # tickets a round trip: one each costs more than packing them

Sampled = tuple[int, float, float, int]
"""How a ticket is to be sampled: completions, temperature, top_p, max_tokens."""

log = structlog.get_logger("learner")


class Issuing(ABC):
    """What both lanes do with their tickets. Every call may raise BrokerFull, and has booked what was put up."""

    def __init__(self, broker: Broker, renderer: Renderer, lane: Lane, sampled: Sampled) -> None:
        self._broker = broker
        self._renderer = renderer
        self._lane = lane
        self._sampled = sampled

    @abstractmethod
    def _problem(self, id: int) -> Problem:
        """The problem of an id, the same in every attempt."""

    def put_up(self, ledger: Ledger, count: int, incarnation: int, step: int) -> None:
        """So many new tickets, the ids in sequence."""
        missing = range(ledger.issued, ledger.issued + count)
        for start in range(0, len(missing), ISSUE_TOGETHER):
            ids = missing[start : start + ISSUE_TOGETHER]
            self._broker.issue_together([self._ticket(id, 1, incarnation, step) for id in ids])
            for id in ids:
                ledger.issue(id)

    def put_up_again(self, ledger: Ledger, ids: Iterable[int], incarnation: int, step: int) -> None:
        """The next attempts of tickets in flight; results of the earlier ones are awaited no longer."""
        attempts = ledger.in_flight()
        for id in ids:
            self._broker.issue(self._ticket(id, attempts[id] + 1, incarnation, step))
            ledger.reissue(id)

    def reissue_lost(self, ledger: Ledger, known: Container[int], incarnation: int, step: int) -> None:
        """Tickets in flight that nobody knows, neither the broker nor the learner: the same ids, the next attempts."""
        lost = [id for id in ledger.in_flight() if id not in known]
        self.put_up_again(ledger, lost, incarnation, step)
        if lost:
            log.warning("tickets were lost by the broker and issued again", count=len(lost), ids=lost[:10])

    def _ticket(self, id: int, attempt: int, incarnation: int, step: int) -> Ticket:
        problem = self._problem(id)
        completions, temperature, top_p, max_tokens = self._sampled
        return Ticket(
            run=self._broker.run,
            lane=self._lane,
            id=id,
            attempt=attempt,
            question=problem.question,
            gold=problem.answer,
            meta=problem.meta,
            prompt_ids=self._renderer.prompt_ids(problem.question),
            completions=completions,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            incarnation=incarnation,
            step=step,
        )
