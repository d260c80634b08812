"""What a consumer holds on a lease: messages that it read or claimed, until it hands them over, back, or gives them up.

A lease is an entry of the group's pending list; it runs out with the time that nobody renewed it.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import structlog

from common.backlog import Backlog
from common.dead_letters import LETTER_BODY_BYTES, MOST_LETTERS
from common.errors import BrokerUnavailable, NewerWire, SchemaError
from common.lanes import GROUPS, Stage, lane_of, named, state_of
from common.schema import DeadLetter, Message, Rollout, Scored, Ticket, pack, unpack

EXPECTED = {"tickets": Ticket, "rollouts": Rollout, "scored": Scored}
"""What the stages of either lane carry."""

LISTED = 10_000  # pending messages, without what they say
TRIED_BY = 5  # readers that are too old for a message, before it is given up
CLAIMED_TOGETHER = 64  # half a megabyte each, at worst more: a reply must come within the client's timeout

_WHOLE = re.compile(rb"0|[1-9][0-9]{0,14}")

log = structlog.get_logger("streams")


@dataclass(frozen=True)
class Delivery:
    """A message that this consumer holds a lease on until it hands over, buries or closes it."""

    stage: Stage
    entry: str
    message: Ticket | Rollout | Scored
    """By stage."""
    deliveries: int
    """1 at first; higher when earlier holders died or gave it back."""

    @property
    def ticket(self) -> Ticket:
        return _ticket(self.message)

    @property
    def name(self) -> str:
        """Its own among all that a worker holds: entries of two streams may be the same."""
        return f"{self.stage}/{self.entry}"


class Deliveries(Backlog):
    """Takes messages of the streams, keeps them, and gives up what cannot be worked on."""

    def read(self, stage: Stage, count: int, block_ms: int) -> list[Delivery]:
        """Up to `count` new messages, waiting at most `block_ms` (0: not at all)."""
        raw = self._do(
            "xreadgroup", GROUPS[stage], self.consumer, {self.key(stage): ">"}, count=count, block=block_ms or None
        )
        return self._deliveries(stage, entries_of(raw), {})

    def claim(
        self,
        stage: Stage,
        min_idle_ms: int,
        max_deliveries: int,
        *,
        held: Container[str] = (),
        count: int = LISTED,
    ) -> list[Delivery]:
        """Takes over at most `count` messages whose lease ran out; one that failed too often goes to the dead letters.

        The entries that the caller has `held` did not fail, however long the broker was away: their leases are renewed
        elsewhere.
        One whose last delivery this is comes alone: should it end its worker once more, it takes no other along.
        """
        due = [item for item in self._pending(stage, idle=min_idle_ms).items() if item[0] not in held]
        last = [(entry, times) for entry, times in due if times + 1 == max_deliveries]
        others = [(entry, times) for entry, times in due if times + 1 != max_deliveries]
        taken = []
        for delivery in self._taken_over(stage, dict(others[:count] or last[:1]), min_idle_ms):
            if delivery.deliveries > max_deliveries:
                self.bury(delivery, f"given up after {delivery.deliveries - 1} deliveries", "")
            else:
                taken.append(delivery)
        return taken

    def inherit(self, stage: Stage, min_idle_ms: int) -> list[Delivery]:
        """Takes over what other consumers left lying, and nothing of one's own, however long that lies."""
        taken: list[Delivery] = []
        for other in self._do("xinfo_consumers", self.key(stage), GROUPS[stage]):
            if other["name"] == self.consumer.encode() or not other["pending"]:
                continue
            left = self._pending(stage, consumername=other["name"], idle=min_idle_ms)
            taken += self._taken_over(stage, left, min_idle_ms)
        return taken

    def missed(self, stage: Stage, held: Container[str]) -> list[Delivery]:
        """What the server counts as ours and we do not hold: its reply was lost on the way."""
        mine = self._pending(stage, consumername=self.consumer)
        return self._taken_over(stage, {entry: times for entry, times in mine.items() if entry not in held}, 0)

    def _pending(self, stage: Stage, **which: Any) -> dict[str, int]:
        """Entry to how often it was delivered, of what the group holds and `which` (consumername, idle) chooses."""
        found = self._do("xpending_range", self.key(stage), GROUPS[stage], "-", "+", LISTED, **which)
        return {pending["message_id"].decode(): pending["times_delivered"] for pending in found}

    def _taken_over(self, stage: Stage, times: Mapping[str, int], min_idle_ms: int) -> list[Delivery]:
        """Pending entries, delivered so many `times` before, and now to us."""
        entries, taken = list(times), []
        for start in range(0, len(entries), CLAIMED_TOGETHER):
            part = entries[start : start + CLAIMED_TOGETHER]
            claimed = self._do("xclaim", self.key(stage), GROUPS[stage], self.consumer, min_idle_ms, part)
            taken += self._deliveries(stage, claimed, times)
        return taken

    def _deliveries(self, stage: Stage, entries: Sequence[Any], times: Mapping[str, int]) -> list[Delivery]:
        good = []
        for raw_entry, fields in entries:
            entry = raw_entry.decode()
            try:
                message = message_of(stage, fields or {}, self.run)
            except SchemaError as error:
                if isinstance(error, NewerWire) and times.get(entry, 0) + 1 < TRIED_BY:
                    log.warning(
                        "left to a newer process when its lease runs out", stage=stage, entry=entry, why=str(error)
                    )
                    continue
                body = (fields or {}).get(b"m", b"")
                reason, trace, (id, attempt) = f"unreadable: {error}", traceback.format_exc(), _named(fields or {})
                if not self._bury(stage, entry, id, attempt, reason, trace, body) and id is not None:
                    reason += f" (beside it stands ticket {id}, attempt {attempt}, which is elsewhere)"
                    self._bury(stage, entry, None, None, reason, trace, body)
            else:
                good.append(Delivery(stage, entry, message, times.get(entry, 0) + 1))
        return good

    def renew(self, deliveries: Sequence[Delivery]) -> set[str]:
        """Renews leases; returns the names of what is still ours (a robbed one must be given up)."""
        mine: set[str] = set()
        for stage, entries in _by_stage(deliveries).items():
            kept = self._script("renew", [stage], [GROUPS[stage], self.consumer, *entries])
            mine |= {f"{stage}/{entry.decode()}" for entry in kept}
        return mine

    def release(self, deliveries: Sequence[Delivery], idle_ms: int) -> None:
        """Hands back what is not worked on any more: idle for so long, as others see it, and not failed."""
        for stage, entries in _by_stage(deliveries).items():
            self._script("release", [stage], [GROUPS[stage], self.consumer, idle_ms, *entries])

    def bury(self, delivery: Delivery, reason: str, trace: str) -> None:
        """Gives a message up: dead-letter stream, acknowledged, ticket marked dead."""
        ticket, body = delivery.ticket, pack(delivery.message)
        if len(body) > LETTER_BODY_BYTES:
            body = pack(ticket)  # all that a retry needs
        self._bury(delivery.stage, delivery.entry, ticket.id, ticket.attempt, reason, trace, body)

    def refuse(self, delivery: Delivery, reason: str, incarnation: int) -> None:
        """The learner gives a message up that has no part in its ticket, whose state stays as it is. Raises Fenced."""
        self._bury(delivery.stage, delivery.entry, None, None, reason, "", pack(delivery.message), incarnation)

    def _bury(
        self,
        stage: Stage,
        entry: str,
        id: int | None,
        attempt: int | None,
        reason: str,
        trace: str,
        body: bytes,
        incarnation: int | None = None,
    ) -> bool:
        """Whether there is a letter now; without one the ticket has moved on, and the message is only acknowledged."""
        letter = DeadLetter(stage, id, attempt, reason[:4000], trace[-8000:], self.consumer, body[:LETTER_BODY_BYTES])
        ticket, fenced = ["" if id is None else id, attempt or 0], "" if incarnation is None else incarnation
        args = [GROUPS[stage], entry, *ticket, state_of(stage), pack(letter), MOST_LETTERS, fenced]
        buried = bool(self._script("bury", [named(lane_of(stage), "open"), stage, "dead", "fence"], args))
        event = "dead letter" if buried else "no dead letter, the ticket has moved on"
        log.error(event, stage=stage, ticket=id, attempt=attempt, reason=reason[:4000])
        return buried

    def leave(self, stage: Stage) -> None:
        """Forgets this consumer if it holds nothing. Best effort: one that stays costs a name in a list."""
        try:
            self._script("leave", [stage], [GROUPS[stage], self.consumer], (BrokerUnavailable,))
        except (BrokerUnavailable, redis.RedisError) as error:
            log.info("left without being forgotten", consumer=self.consumer, why=str(error))


def _by_stage(deliveries: Sequence[Delivery]) -> dict[Stage, list[str]]:
    """The entries of each stage."""
    found: dict[Stage, list[str]] = {}
    for delivery in deliveries:
        found.setdefault(delivery.stage, []).append(delivery.entry)
    return found


def _named(fields: Mapping[bytes, bytes]) -> tuple[int | None, int | None]:
    """(id, attempt) that stand beside a message: its ticket can be replaced although nobody can read it."""
    id, attempt = fields.get(b"id", b""), fields.get(b"attempt", b"")
    return (int(id), int(attempt)) if _WHOLE.fullmatch(id) and _WHOLE.fullmatch(attempt) else (None, None)


def message_of(stage: Stage, fields: Mapping[bytes, bytes], run: str) -> Ticket | Rollout | Scored:
    """The message in an entry of a stage's stream. SchemaError for what is none, or of another kind, run or lane."""
    message: Message = unpack(fields.get(b"m", b""))
    if not isinstance(message, EXPECTED[state_of(stage)]):
        raise SchemaError(f"a {message.KIND} in the stream of {stage}")
    assert isinstance(message, Ticket | Rollout | Scored)
    if (of := _ticket(message).run) != run:
        raise SchemaError(f"it belongs to run {of!r:.140}, this is {run!r}")
    if (lane := _ticket(message).lane) != lane_of(stage):
        raise SchemaError(f"its ticket is one of {lane}, in the stream of {stage}")
    return message


def entries_of(raw: Any) -> list[Any]:
    """[(entry, fields)] in a reply of XREADGROUP for one stream: a list by RESP2, a map with a list more by RESP3."""
    [(_, entries)] = (raw.items() if isinstance(raw, dict) else raw) or [(b"", [])]
    return list(entries[0] if entries and isinstance(entries[0], list) else entries)


def _ticket(message: Ticket | Rollout | Scored) -> Ticket:
    return message if isinstance(message, Ticket) else message.ticket
