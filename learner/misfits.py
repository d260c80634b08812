"""Groups that are not what the learner ordered: one is dropped, nothing but such ones ends the run."""

from __future__ import annotations

from common.errors import ModelError

BATCHES = 3  # of groups, all misfits: no accident of one actor


class Misfits:
    """`saw` every group in turn. Pure."""

    def __init__(self, groups_per_step: int) -> None:
        self._most = BATCHES * groups_per_step
        self._row = 0

    def saw(self, why: str | None) -> None:
        """A group that fits (None), or why it does not.

        Raises ModelError when so many in a row do not that there will be no batch. None of them is committed then: the
        next learner has them again.
        """
        self._row = self._row + 1 if why else 0
        if self._row >= self._most:
            raise ModelError(
                f"the last {self._row} groups could not be trained on, the newest since {why}; start actors and "
                "learner with the same settings and the same model, then the same command resumes"
            )
