"""What was given up: a stream of messages as they were, each with the reason, and what may become of it.

    {run}:dead     stream of dead letters, read by the learner and by `hero queue`

The learner books a letter's ticket as dead-lettered and issues a new ticket in its place. A letter stays until
somebody looks: `retry` puts its ticket up again as the next attempt, `drop` forgets it; the books keep either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from common.errors import SchemaError
from common.schema import DeadLetter, Rollout, Scored, Ticket, pack, unpack
from common.shared_state import SharedState

log = structlog.get_logger("streams")


class DeadLetters(SharedState):
    """The dead letters of a run."""

    def dead_letters(self, after: str = "0", count: int = 1000) -> list[tuple[str, DeadLetter]]:
        """(entry, letter) of given-up messages after an entry, oldest first; what is none of ours is passed over."""
        letters = []
        for entry, fields in self._do("xrange", self.key("dead"), f"({after}", "+", count):
            try:
                message = unpack(fields.get(b"m", b""))
            except SchemaError as error:
                log.warning("foreign entry among the dead letters", entry=entry.decode(), why=str(error))
                continue
            if isinstance(message, DeadLetter):
                letters.append((entry.decode(), message))
        return letters

    def dead_count(self) -> int:
        """Entries of the stream of dead letters."""
        return int(self._do("xlen", self.key("dead")))

    def retry(self, entry: str, letter: DeadLetter) -> bool:
        """Puts the letter's ticket up again; False when it has moved on. SchemaError when no ticket can be read."""
        message = unpack(letter.body)
        if not isinstance(message, Ticket | Rollout | Scored):
            raise SchemaError(f"the letter holds a {message.KIND}, not a ticket")
        ticket = message if isinstance(message, Ticket) else message.ticket
        following = replace(ticket, attempt=ticket.attempt + 1)
        args = [entry, ticket.id, ticket.attempt, following.attempt, pack(following)]
        return bool(self._script("retry", ["open", "tickets", "dead"], args))

    def drop(self, entries: Sequence[str]) -> int:
        """Forgets letters; returns how many were there."""
        return int(self._do("xdel", self.key("dead"), *entries)) if entries else 0
