"""Batches whose gradient was not finite: counted by the tickets in them, and too many in a row end the run."""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import Diverged


class Skips:
    """`saw` every batch in turn. Pure."""

    def __init__(self, most_in_a_row: int) -> None:
        self._most = most_in_a_row
        self._row: list[list[int]] = []
        self.counts: dict[str, int | list[int]] = {}
        """Of the last batch: skipped_steps, and skipped_tickets where there were some."""

    def saw(self, skipped: int, tickets: Sequence[int]) -> None:
        """A batch of these `tickets`, of whose optimizer steps so many were `skipped`.

        Raises Diverged at the last of `most_in_a_row` batches that had one. None of them is committed then: the next
        learner has them again.
        """
        self.counts = {"skipped_steps": skipped}
        if not skipped:
            self._row.clear()
            return
        self.counts["skipped_tickets"] = list(tickets)
        self._row.append(list(tickets))
        if len(self._row) >= self._most:
            raise Diverged(
                f"{len(self._row)} batches in a row had a gradient that is not finite (learner.max_skipped_batches); "
                f"the last one was of tickets {self._row[-1]}, the first of {self._row[0]}: look at their texts and "
                "log-probabilities in the reward log, lower learner.lr, or go back to an older checkpoint"
            )
