"""What a soak must find at its end, from the surviving checkpoint and the broker; not from any counter under test.

lost        a ticket that no book and no stream has: issued and neither settled in the surviving record nor open in the
            broker with its message where its state says; or given up, which nothing here gives a reason for
duplicated  a ticket trained into two surviving steps, or trained and still open, or a message that was published twice
            for one attempt
repeated    a ticket issued again although the broker never lost it
differing   weights that are not, bit for bit, those of an uninterrupted run over the same record

Of evaluation: lost are its tickets too, and a problem that a round does without; duplicated is one that a round has
twice. What a dead learner's policies answered is asked again, so none of it is repeated without cause.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import redis
from redis.exceptions import RedisClusterException

from common.address import client_of
from common.lanes import GROUPS, Lane, Stage, lane_of, state_of
from common.streams import Broker
from learner.ledger import EvaluationLedger, Ledger

Published = Counter[tuple[str, int, int]]
"""How often (stage, id, attempt) was put into a stream."""


@dataclass
class Findings:
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not any(vars(self).values())

    def __add__(self, others: Findings) -> Findings:
        return Findings(**{kind: lines + getattr(others, kind) for kind, lines in vars(self).items()})


FINDINGS = (*(field.name for field in fields(Findings)), "violations")
"""What makes a proof fail, as its closing line counts it."""


@dataclass(frozen=True)
class BrokerState:
    """What the broker holds of a lane at the end."""

    open_tickets: Mapping[int, tuple[str, int]]
    messages: Mapping[str, set[tuple[int, int]]]
    """Per stage, as open tickets have it, (id, attempt) of every unacknowledged entry."""
    letters: Sequence[str] = ()
    """Of the first dead letters their tickets and reasons."""


def audit(
    ledger: Ledger,
    last_step: int,
    groups_per_step: int,
    broker: BrokerState,
    published: Published,
    *,
    losses: bool = False,
) -> Findings:
    """`ledger`: of the surviving checkpoint.

    What was issued after the checkpoint is joined to the ledger first, as the next learner does. With `losses` the
    broker has lost its data: tickets come again, and only what is trained twice is a duplicate.
    """
    found = Findings()
    ledger.adopt(broker.open_tickets)
    trained: dict[int, int] = {}
    for step in range(1, last_step + 1):
        ids = ledger.trained_in(step)
        if len(ids) != groups_per_step:
            found.duplicated.append(f"step {step} holds {len(ids)} groups, not {groups_per_step}: {ids}")
        for id in ids:
            if id in trained:
                found.duplicated.append(f"ticket {id} was trained into steps {trained[id]} and {step}")
            trained[id] = step
    if len(trained) != (booked := ledger.counts()["trained"]):
        found.duplicated.append(f"{booked} tickets are booked as trained, {len(trained)} are in the steps that survive")
    _compare(found, "train", ledger, broker, published, losses=losses)
    for id, (_, attempt) in sorted(broker.open_tickets.items()) if not losses else ():
        if attempt > 1:
            found.repeated.append(f"ticket {id} is at attempt {attempt}")
    for stage, id, attempt in sorted(published) if not losses else ():
        if attempt > 1 and lane_of(stage) == "train":
            found.repeated.append(f"ticket {id} was put up as attempt {attempt} in {stage}")
    return found


def audit_evaluation(
    ledger: EvaluationLedger,
    rounds: Sequence[Mapping[str, Any]],
    asked: int,
    broker: BrokerState,
    published: Published,
    *,
    losses: bool = False,
) -> Findings:
    """`rounds`: the lines of eval.jsonl, each of which should have `asked` problems once.

    The books know nothing of a round that a learner finished which died before its next checkpoint.
    """
    found = Findings()
    ledger.adopt(broker.open_tickets)
    _compare(found, "eval", ledger, broker, published, losses=losses)
    for line in rounds:
        step, problems, given_up = line["step"], line["eval"]["problems"], line["eval"]["given_up"]
        if (problems, given_up) != (asked, 0):
            found.lost.append(f"the round of step {step} has {problems} of {asked} problems, {given_up} given up")
        if len(ids := ledger.trained_in(step)) not in (0, asked):
            found.duplicated.append(f"the round of step {step} has {asked} problems, the books {len(ids)}: {ids}")
    return found


def _compare(
    found: Findings, lane: Lane, ledger: Ledger, broker: BrokerState, published: Published, *, losses: bool
) -> None:
    """Books, open tickets and streams of a lane with one another."""
    open_tickets = broker.open_tickets
    if unknown := sorted({id for stage, id, _ in published if lane_of(stage) == lane and id >= ledger.issued}):
        found.lost.append(f"tickets {unknown[:10]} were in a stream, and neither books nor broker know them")
    in_flight = ledger.in_flight()
    for id in sorted(in_flight.keys() - open_tickets.keys()):
        found.lost.append(f"ticket {id} is in flight in the books and unknown to the broker")
    for id, (stage, attempt) in sorted(open_tickets.items()):
        if stage != "dead" and (id, attempt) not in broker.messages.get(stage, set()):
            found.lost.append(f"ticket {id} is open as {stage} {attempt}, where there is no message of it")
        if stage != "dead" and ledger.is_settled(id) and not losses:
            found.duplicated.append(f"ticket {id} is settled in the books and still open as {stage} {attempt}")
    found.lost += [] if losses else [f"given up: {letter}" for letter in broker.letters]
    for (stage, id, attempt), times in sorted(published.items()) if not losses else ():
        if times > 1 and lane_of(stage) == lane:
            found.duplicated.append(f"ticket {id}, attempt {attempt} came {times} times into {stage}")


def left_in(broker: Broker, lane: Lane) -> BrokerState:
    client = client_of(broker.url)
    letters = [letter for _, letter in broker.dead_letters() if lane_of(letter.stage) == lane]
    return BrokerState(
        broker.open_tickets(lane),
        {state_of(stage): set(entries(client, broker.run, stage)) for stage in GROUPS if lane_of(stage) == lane},
        [f"ticket {letter.id}, {letter.stage}: {letter.reason}" for letter in letters],
    )


def entries(client: Any, run_id: str, stage: Stage) -> list[tuple[int, int]]:
    """(id, attempt) of every entry of a stream that its owning group has not acknowledged."""
    key, group = f"{{{run_id}}}:{stage}", GROUPS[stage]
    pending = {p["message_id"] for p in client.xpending_range(key, group, "-", "+", 10**6)}
    [info] = [i for i in client.xinfo_groups(key) if i["name"] == group.encode()]
    last = _order(info["last-delivered-id"])
    return [
        (int(fields[b"id"]), int(fields[b"attempt"]))
        for entry, fields in client.xrange(key)
        if entry in pending or _order(entry) > last
    ]


def _order(entry: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry.decode().partition("-")
    return int(milliseconds), int(sequence)


class Observer(threading.Thread):
    """Reads every stream without belonging to any group, counts what is published and keeps what was scored.

    A `watched_learner` trims no further than what it has read.
    """

    def __init__(self, url: str, run_id: str) -> None:
        super().__init__(name="observer", daemon=True)
        self._client = client_of(url)
        self._stages = {f"{{{run_id}}}:{stage}".encode(): stage for stage in GROUPS}
        self._last = dict.fromkeys(self._stages, b"0-0")
        self._seen = f"{{{run_id}}}:seen"
        self._tell()
        self._done = threading.Event()
        self.published: Published = Counter()
        self.scored: dict[int, bytes] = {}
        """The scored message of every ticket that came so far."""

    def run(self) -> None:
        while not self._done.is_set():
            try:
                self.look(block_ms=200)
            except (redis.RedisError, RedisClusterException):  # the server is being killed
                time.sleep(0.05)

    def look(self, block_ms: int | None = None) -> None:
        for key, entries in self._client.xread(self._last, block=block_ms):
            stage = self._stages[key]
            for entry, message in entries:
                self._last[key] = entry
                id = int(message[b"id"])
                self.published[stage, id, int(message[b"attempt"])] += 1
                if stage == "scored":
                    self.scored[id] = message[b"m"]
        self._tell()

    def _tell(self) -> None:
        self._client.hset(self._seen, mapping={stage: self._last[key] for key, stage in self._stages.items()})

    def missed(self) -> list[str]:
        """Streams that had more entries, by the server's own count, than were seen."""
        seen = Counter[str]()
        for (stage, _, _), times in self.published.items():
            seen[stage] += times
        added = {stage: self._client.xinfo_stream(key)["entries-added"] for key, stage in self._stages.items()}
        return [
            f"{seen[stage]} of {entries} entries of {stage} were seen"
            for stage, entries in added.items()
            if entries != seen[stage]
        ]

    def end(self) -> None:
        self._done.set()
        self.join(10)
        self.look()
