"""The streams of a run: tickets and their states, hand-over between stages.

    {run}:tickets  {run}:rollouts  {run}:scored     streams, one owning consumer group each
    {run}:open     hash id -> "stage attempt"        every ticket that is not closed
    {run}:issued   incarnation of the learner, and the id that it issues next

Evaluation has the same five of its own (`common.lanes`).
A hand-over between stages is one Lua script on the server (`common/lua`): at least once between stages,
exactly once in effect, whatever retries, robs or dies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import structlog

from common.connection import BrokerFull
from common.deliveries import Deliveries, Delivery
from common.errors import SchemaError
from common.lanes import GROUPS, NEXT, Lane, lane_of, named, state_of
from common.schema import Rollout, Scored, Ticket, pack

REMOVED_TOGETHER = 10_000  # a server takes a million arguments and no more

_OPEN = re.compile(rb"(0|[1-9][0-9]{0,14}) (tickets|rollouts|scored|dead) ([1-9][0-9]{0,8})")  # id, stage, attempt

log = structlog.get_logger("streams")


class Broker(Deliveries):
    """One process's access to a run; by its bases deliveries, backlog, dead letters, shared state, the connection."""

    def _prepare(self) -> None:
        self._script("prepare", list(GROUPS), list(GROUPS.values()))

    def issue(self, ticket: Ticket) -> bool:
        """Puts a ticket up once; False if it was up before. Raises BrokerFull instead of waiting for room."""
        return self.issue_together([ticket])[0]

    def issue_together(self, tickets: Sequence[Ticket]) -> list[bool]:
        """`issue` for several tickets of one incarnation and lane in one step: all are put up, or it raises."""
        if not tickets:
            return []
        lane = tickets[0].lane
        keys = [named(lane, "open"), named(lane, "tickets"), "fence", named(lane, "issued")]
        args = [tickets[0].incarnation, *(part for t in tickets for part in (t.id, t.attempt, pack(t)))]
        return [bool(new) for new in self._script("issue", keys, args, (BrokerFull,))]

    def close(self, incarnation: int, done: Sequence[tuple[int, int, str]], lane: Lane = "train") -> None:
        """Acknowledges and forgets tickets [(id, attempt, entry or "")] whose effect is durable."""
        keys = [named(lane, "open"), named(lane, "scored"), "fence"]
        for start in range(0, len(done), 500):
            args = [incarnation, GROUPS["scored"], *(part for item in done[start : start + 500] for part in item)]
            self._script("close", keys, args)

    def open_tickets(self, lane: Lane = "train") -> dict[int, tuple[str, int]]:
        """{id: (stage, attempt)} of every ticket of a lane that is not closed; stage may be "dead".

        What no script of ours can have written is told and removed: none would ever change it.
        """
        key = self.key(named(lane, "open"))
        found, foreign = {}, []
        for id, state in self._do("hgetall", key).items():
            if match := _OPEN.fullmatch(id + b" " + state):
                found[int(match[1])] = (match[2].decode(), int(match[3]))
            else:
                foreign.append(id)
        if foreign:
            shown = [repr(id[:40]) for id in foreign[:10]]
            log.warning("removed from the open tickets: none of ours", count=len(foreign), fields=shown)
            self._do("hdel", key, *foreign[:REMOVED_TOGETHER])
        return found

    def hand_over(self, delivery: Delivery, result: Rollout | Scored, momentum: float = 0.0) -> bool:
        """Publishes the result, acknowledges the input and advances the ticket, all or nothing.

        False: somebody else was first, or the ticket was issued again; nothing was published.
        A scored group of training with a sigma_u moves sigma_bar and sigma_dev in the same step, so once per ticket.
        """
        return self.hand_over_together([(delivery, result)], momentum)[0]

    def hand_over_together(
        self, results: Sequence[tuple[Delivery, Rollout | Scored]], momentum: float = 0.0
    ) -> list[bool]:
        """`hand_over` for several groups in one round trip, in order; each is all or nothing for itself.

        One whose result no message can hold is given up: with the next worker it would come to the same.
        """
        calls = {}
        for place, (delivery, result) in enumerate(results):
            stage, target, ticket = delivery.stage, NEXT[delivery.stage], delivery.ticket
            try:
                payload = pack(result)
            except SchemaError as error:
                self.bury(delivery, f"its {result.KIND} cannot be sent: {error}", "")
                continue
            sigma_u = result.sigma_u if isinstance(result, Scored) and ticket.lane == "train" else None
            args = [
                GROUPS[stage],
                delivery.entry,
                ticket.id,
                ticket.attempt,
                state_of(stage),
                state_of(target),
                payload,
                "" if sigma_u is None else repr(sigma_u),
                momentum,
            ]
            calls[place] = ([named(lane_of(stage), "open"), stage, target, "sigma"], args)
        done = dict(zip(calls, self._scripts_together("hand_over", list(calls.values())), strict=True))
        for place in (place for place, published in done.items() if not published):
            ticket = results[place][0].ticket
            log.info("not published: the ticket has moved on", ticket=ticket.id, attempt=ticket.attempt)
        return [bool(done.get(place)) for place in range(len(results))]
