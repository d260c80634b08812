"""Compares the ledger with the broker: what either knows and the other does not is booked, issued again or closed."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from common.deliveries import Delivery
from common.lanes import Lane, lane_of
from common.streams import Broker
from learner.commit import Committer
from learner.issuing import Issuing
from learner.ledger import Ledger

log = structlog.get_logger("learner")


class Reconciler:
    """Keeps a lane's ledger and the broker's open tickets the same; the ledger is the truth."""

    def __init__(self, broker: Broker, lane: Lane, committer: Committer, issuer: Issuing) -> None:
        self._broker, self._lane, self._committer, self._issuer = broker, lane, committer, issuer
        self._last_letter = "0"

    def adopt(self, ledger: Ledger, incarnation: int, reach: int) -> dict[int, tuple[str, int]]:
        """Joins the broker's open tickets to the ledger and returns them: {id: (stage, attempt)}.

        What no learner of this run can have issued, `reach` or more above what the ledger knows, is closed.
        """
        known = self._broker.open_tickets(self._lane)
        if beyond := ledger.adopt(known, reach):
            log.error("closed: open tickets that were never issued", count=len(beyond), ids=beyond[:10])
            self._broker.close(incarnation, [(id, known.pop(id)[1], "") for id in beyond], self._lane)
        return known

    def awaits(self, ledger: Ledger, delivery: Delivery, ready: Sequence[Delivery], incarnation: int) -> bool:
        """Whether a scored group is awaited, and neither settled nor `ready`.

        A duplicate, or one that a checkpoint has, is acknowledged with the next commit, one that nobody has ordered at
        once. Raises Fenced.
        """
        ticket = delivery.ticket
        if delivery.entry in self.entries(ready):
            return False  # an older learner took it over from us, and we from that one
        if ticket.id >= ledger.issued:
            why = f"ticket {ticket.id} was never issued: {ledger.issued} were"
            self._broker.refuse(delivery, why, incarnation)
            return False
        held = any(d.ticket.id == ticket.id for d in ready)
        ledger.revive(ticket.id, ticket.attempt)
        if not held and ledger.accepts(ticket.id, ticket.attempt):
            return True
        id = ticket.id if ledger.is_settled(ticket.id) else -1
        log.info("group not awaited", ticket=ticket.id, attempt=ticket.attempt, held=held, settled=id >= 0)
        self._committer.settle(self._lane, id, ticket.attempt, delivery.entry)
        return False

    def entries(self, ready: Sequence[Delivery]) -> set[str]:
        """The messages that are ours until the next commit, or longer."""
        return self._committer.entries(self._lane) | {delivery.entry for delivery in ready}

    def collect_dead(self, ledger: Ledger) -> None:
        """Books what was given up; each leaves room for a new ticket."""
        for entry, letter in self._broker.dead_letters(self._last_letter):
            self._last_letter = entry
            ours = lane_of(letter.stage) == self._lane and letter.id is not None and letter.attempt is not None
            if ours and ledger.accepts(letter.id, letter.attempt):
                self._bury(ledger, letter.id, letter.attempt)

    def compare(self, ledger: Ledger, ready: Sequence[Delivery], incarnation: int, step: int) -> None:
        """Issues again what nobody has any more, neither the broker nor `ready`. Raises BrokerFull."""
        closing = self._committer.ids(self._lane)
        known = self.adopt(ledger, incarnation, reach=0)  # only this learner issues while it lives
        for id, attempt in [(id, attempt) for id, (stage, attempt) in known.items() if stage == "dead"]:
            if ledger.accepts(id, attempt):  # somebody dropped its letter unread
                self._bury(ledger, id, attempt)
            elif ledger.is_settled(id) and id not in closing:  # booked by one who died before it closed it
                self._committer.settle(self._lane, id, attempt)
        if self._broker.idle(len(self.entries(ready)), self._lane):
            known = {}  # open, and in no stream: somebody took their messages away
        held = {delivery.ticket.id for delivery in ready}
        self._issuer.reissue_lost(ledger, known.keys() | held, incarnation, step)

    def _bury(self, ledger: Ledger, id: int, attempt: int) -> None:
        ledger.bury(id)
        self._committer.settle(self._lane, id, attempt)
