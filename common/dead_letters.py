"""What was given up: a stream of messages as they were, each with the reason, and what may become of it.

    {run}:dead     stream of dead letters of both lanes, read by the learner and by `hero queue`

The learner books a letter's ticket as dead-lettered and issues a new ticket in its place. A letter stays until
somebody looks, or until a thousand newer ones have come: `retry` puts its ticket up again as the next attempt, `drop`
forgets it; the books keep either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.errors import SchemaError
from common.history import History
from common.schema import DeadLetter, Rollout, Scored, Ticket, pack, unpack

PAGE = 100  # letters that are read at once
MOST_LETTERS, LETTER_BODY_BYTES = 1000, 2**18  # at most 256 MiB in the broker, whoever floods it


class DeadLetters(History):
    """The dead letters of a run."""

    def dead_letters(self, after: str = "0") -> list[tuple[str, DeadLetter]]:
        """(entry, letter) of PAGE given-up messages after an entry, oldest first; what is none of ours says so."""
        found = self._do("xrange", self.key("dead"), f"({after}", "+", PAGE)
        return [(entry.decode(), _letter(fields.get(b"m", b""))) for entry, fields in found]

    def dead_count(self) -> int:
        """Entries of the stream of dead letters."""
        return int(self._do("xlen", self.key("dead")))

    def retry(self, entry: str, letter: DeadLetter) -> bool:
        """Puts the letter's ticket up again; False when it has moved on. SchemaError when no ticket can be read.

        Evaluation waits for none that was given up, and asks everything again in its next round: SchemaError, too.
        """
        message = unpack(letter.body)
        if not isinstance(message, Ticket | Rollout | Scored):
            raise SchemaError(f"the letter holds a {message.KIND}, not a ticket")
        ticket = message if isinstance(message, Ticket) else message.ticket
        if ticket.run != self.run:
            raise SchemaError(f"it belongs to run {ticket.run!r:.140}")
        if ticket.lane != "train":
            raise SchemaError("it is one of evaluation")
        following = replace(ticket, attempt=ticket.attempt + 1)
        args = [entry, ticket.id, ticket.attempt, following.attempt, pack(following)]
        return bool(self._script("retry", ["open", "tickets", "dead"], args))

    def drop(self, entries: Sequence[str]) -> int:
        """Forgets letters; returns how many were there."""
        return int(self._do("xdel", self.key("dead"), *entries)) if entries else 0


def _letter(body: bytes) -> DeadLetter:
    """The letter in `body`; for what is none, one that names no ticket and says what is wrong."""
    try:
        message = unpack(body)
        if isinstance(message, DeadLetter):
            return message
        raise SchemaError(f"a {message.KIND} among the dead letters")
    except SchemaError as error:
        return DeadLetter("?", None, None, f"unreadable letter: {error}"[:4000], "", "?", body)
