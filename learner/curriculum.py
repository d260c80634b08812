"""Prompts by difficulty: what the policy still gets wrong comes more often. Pure; its state goes into checkpoints."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgpack
import numpy as np
from numpy.typing import NDArray

MOMENTUM = 0.5  # a prompt is met once in an epoch or so: an older rate than that is of another policy
LEAST = 0.05  # of a prompt that is always right: it comes back, or nobody would see it forgotten


class ByDifficulty:
    """An order like `learner.tickets.PromptOrder`, whose epochs are drawn in turn.

    In an epoch of R tickets row i comes about R p_i times, p_i in proportion to 1 - s_i, its share of right completions
    (a running mean; Kimi k1.5, arXiv:2501.12599, section 2.3.4). A row that was never met counts as always wrong. The
    draw is systematic, floor(R p_i) or one more, and then shuffled.

    Since an epoch depends on what was met before it, it is `planned` once, and no ticket of it may be issued before a
    checkpoint has the plan: afterwards it is the same whoever asks.
    """

    def __init__(self, questions: Sequence[str], seed: int) -> None:
        if not questions:
            raise ValueError("no prompts")
        self._rows = len(questions)
        self._seed = seed
        self._row_of = {question: row for row, question in enumerate(questions)}
        self._solved = np.zeros(self._rows, np.float32)
        self._plans: dict[int, NDArray[np.int32]] = {}
        self._durable: set[int] = set()

    def row(self, ticket_id: int) -> int:
        """Row of a ticket; the same in every attempt and after every restart, until its epoch is forgotten."""
        epoch, place = divmod(ticket_id, self._rows)
        return int(self._plan(epoch)[place])

    def planned(self, ticket_id: int) -> bool:
        """Whether a checkpoint has the epoch of this ticket; if not, the next one will."""
        epoch = ticket_id // self._rows
        self._plan(epoch)
        return epoch in self._durable

    def met(self, question: str, share_right: float) -> None:
        """Takes the share of right completions of a group; one of an unknown question changes nothing."""
        row = self._row_of.get(question)
        if row is not None:
            self._solved[row] += (1 - MOMENTUM) * (share_right - self._solved[row])

    def dump(self, oldest_ticket: int) -> bytes:
        """For a checkpoint; epochs of which every ticket is older than `oldest_ticket` are forgotten."""
        self._plans = {e: rows for e, rows in self._plans.items() if e >= oldest_ticket // self._rows}
        return msgpack.packb(
            {
                "solved": zlib.compress(self._solved.astype("<f4").tobytes()),
                "plans": {e: zlib.compress(rows.astype("<i4").tobytes()) for e, rows in self._plans.items()},
            }
        )

    def saved(self) -> None:
        """What was dumped last is in a durable checkpoint."""
        self._durable = set(self._plans)

    def restore(self, data: bytes) -> None:
        """The state that `dump` gave. Raises ValueError when it is of other prompts."""
        state = msgpack.unpackb(data, strict_map_key=False)
        solved = np.frombuffer(zlib.decompress(state["solved"]), "<f4")
        if len(solved) != self._rows:
            raise ValueError(f"the checkpoint knows {len(solved):,} prompts, data.train has {self._rows:,}")
        self._solved = solved.astype(np.float32)
        self._plans = {e: np.frombuffer(zlib.decompress(rows), "<i4") for e, rows in state["plans"].items()}
        self.saved()

    def _plan(self, epoch: int) -> NDArray[np.int32]:
        if epoch not in self._plans:
            self._plans[epoch] = self._drawn(epoch)
        return self._plans[epoch]

    def _drawn(self, epoch: int) -> NDArray[np.int32]:
        random = np.random.default_rng([self._seed, epoch])
        share = np.maximum(1.0 - self._solved.astype(np.float64), LEAST)
        marks = (random.random() + np.arange(self._rows)) / self._rows
        rows = np.searchsorted(np.cumsum(share / share.sum()), marks).clip(max=self._rows - 1)
        random.shuffle(rows)
        return rows.astype(np.int32)
