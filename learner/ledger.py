"""The books: the state of every ticket ever issued, each counted on its own. Pure.

    issued = in_flight + trained + dropped + dead_lettered     at every moment

A state is kept per ticket (5 bytes each), never computed as a difference, so an error shows as an imbalance.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

import msgpack
import numpy as np

from common.errors import BooksError

IN_FLIGHT, TRAINED, DROPPED, DEAD = range(4)
REACH = 2**20  # for those who do not know how many tickets a run can issue between two checkpoints


class Ledger:
    NAMES: ClassVar = ("in_flight", "trained", "dropped", "dead_lettered")

    def __init__(self) -> None:
        self.issued = 0
        """Tickets issued so far; ids are 0 .. issued - 1."""
        self.drops: Counter[str] = Counter()
        self._state = np.zeros(1024, np.uint8)
        self._step = np.full(1024, -1, np.int32)
        self._attempt: dict[int, int] = {}
        self._buried: dict[int, int] = {}

    def issue(self, id: int) -> None:
        """Books a ticket as in flight, attempt 1. Ids come in sequence."""
        if id != self.issued:
            raise BooksError(f"ticket {id} issued out of order, expected {self.issued}")
        if id >= len(self._state):
            self._state = np.concatenate([self._state, np.zeros_like(self._state)])
            self._step = np.concatenate([self._step, np.full_like(self._step, -1)])
        self._state[id] = IN_FLIGHT
        self._attempt[id] = 1
        self.issued += 1

    def reissue(self, id: int) -> int:
        """The next attempt of a ticket that never came back."""
        self._expect_open(id)
        self._attempt[id] += 1
        return self._attempt[id]

    def accepts(self, id: int, attempt: int) -> bool:
        """Whether a result of this attempt is awaited: in flight, and not superseded."""
        return self._attempt.get(id) == attempt

    def train(self, ids: Iterable[int], step: int) -> None:
        """Books tickets as trained into the batch that made `step`."""
        for id in ids:
            self._settle(id, TRAINED)
            self._step[id] = step

    def drop(self, id: int, reason: str) -> None:
        self._settle(id, DROPPED)
        self.drops[reason] += 1

    def bury(self, id: int) -> None:
        """Books a ticket as dead-lettered."""
        self._expect_open(id)
        self._buried[id] = self._attempt[id]
        self._settle(id, DEAD)

    def revive(self, id: int, attempt: int) -> bool:
        """Books a dead-lettered ticket as in flight again if it was put up as a later attempt than the one buried."""
        if attempt <= self._buried.get(id, attempt):
            return False
        del self._buried[id]
        self._state[id] = IN_FLIGHT
        self._attempt[id] = attempt
        return True

    def in_flight(self) -> dict[int, int]:
        """{id: attempt} of every ticket in flight."""
        return dict(self._attempt)

    def adopt(self, open_tickets: Mapping[int, tuple[str, int]], reach: int = REACH) -> list[int]:
        """Joins the broker's open set: what was issued, or revived, after this ledger was saved is in flight again.

        Returns the ids that are not believed: `reach` or more above what this ledger issued, so of no learner of ours.
        """
        beyond = sorted(id for id in open_tickets if id >= self.issued + reach)
        for id in range(self.issued, max(open_tickets.keys() - set(beyond), default=-1) + 1):
            self.issue(id)
        for id, (stage, attempt) in open_tickets.items():
            if id in self._attempt:
                self._attempt[id] = max(self._attempt[id], attempt)
            elif stage != "dead":
                self.revive(id, attempt)
        return beyond

    def trained_in(self, step: int) -> list[int]:
        """Ids that were trained into the batch that made `step`."""
        return [int(i) for i in np.flatnonzero(self._step[: self.issued] == step)]

    def is_settled(self, id: int) -> bool:
        return id < self.issued and self._state[id] != IN_FLIGHT

    def counts(self) -> dict[str, int]:
        """{"issued", "in_flight", "trained", "dropped", "dead_lettered"}; "evaluated" for "trained" in evaluation's."""
        tallied = np.bincount(self._state[: self.issued], minlength=len(self.NAMES))
        return {"issued": self.issued} | {name: int(n) for name, n in zip(self.NAMES, tallied, strict=True)}

    def audit(self) -> dict[str, int]:
        """The counts, after checking them against each other and the open attempts. Raises BooksError."""
        counts = self.counts()
        open_by_state = {int(i) for i in np.flatnonzero(self._state[: self.issued] == IN_FLIGHT)}
        dead_by_state = {int(i) for i in np.flatnonzero(self._state[: self.issued] == DEAD)}
        for what, astray in (
            ("in flight", open_by_state ^ self._attempt.keys()),
            ("dead-lettered", dead_by_state ^ self._buried.keys()),
        ):
            if astray:
                raise BooksError(f"tickets {sorted(astray)[:20]} are {what} in one book and not in the other")
        if counts["dropped"] != self.drops.total() or counts["issued"] != sum(counts[name] for name in self.NAMES):
            dropped = np.flatnonzero(self._state[: self.issued] == DROPPED).tolist()
            told = f"{counts}, drops {dict(self.drops)}, the last dropped tickets {dropped[-20:]}"
            raise BooksError(f"the books do not balance: {told}")
        return counts

    def dump(self) -> bytes:
        return msgpack.packb(
            {
                "issued": self.issued,
                "state": zlib.compress(self._state[: self.issued].tobytes()),
                "step": zlib.compress(self._step[: self.issued].astype("<i4").tobytes()),
                "attempt": list(self._attempt.items()),
                "buried": list(self._buried.items()),
                "drops": dict(self.drops),
            }
        )

    @classmethod
    def restored(cls, data: bytes) -> Self:
        """The ledger that `dump` wrote."""
        saved = msgpack.unpackb(data, strict_map_key=False)
        ledger = cls()
        ledger.issued = saved["issued"]
        size = max(1024, 2 * ledger.issued)
        ledger._state = np.zeros(size, np.uint8)
        ledger._step = np.full(size, -1, np.int32)
        ledger._state[: ledger.issued] = np.frombuffer(zlib.decompress(saved["state"]), np.uint8)
        ledger._step[: ledger.issued] = np.frombuffer(zlib.decompress(saved["step"]), "<i4")
        ledger._attempt = dict(saved["attempt"])
        ledger._buried = dict(saved["buried"])
        ledger.drops = Counter(saved["drops"])
        ledger.audit()
        return ledger

    def _expect_open(self, id: int) -> None:
        if id not in self._attempt:
            raise BooksError(f"ticket {id} is not in flight (issued so far: {self.issued})")

    def _settle(self, id: int, state: int) -> None:
        self._expect_open(id)
        self._state[id] = state
        del self._attempt[id]


class EvaluationLedger(Ledger):
    """The books of evaluation: what comes back is not trained on but evaluated."""

    NAMES: ClassVar = ("in_flight", "evaluated", "dropped", "dead_lettered")

    def evaluate(self, id: int, step: int) -> None:
        """Books a ticket as evaluated in the round of `step`."""
        self.train([id], step)
