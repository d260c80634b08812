"""How sequences lie in a packed row: end to end, and a prompt that several of them have stands there once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """S sequences in a row of L tokens.

    Example: [5, 6, 7] and [5, 6, 9] lie as [5, 6, 7, 9] with widths [3, 3], shared [0, 2], positions [0, 1, 2, 2].
    """

    widths: Places
    """[S], tokens of each sequence."""
    shared: Places
    """[S], how many of them it has, from its beginning, in common with the last one before it that shares nothing."""

    @property
    def own(self) -> Places:
        """[S], tokens that each adds to the row; they sum to L. None, where a prompt's one next token is predicted."""
        return self.widths - self.shared

    @property
    def position_ids(self) -> Places:
        """[L], from 0 in each sequence."""
        return np.repeat(self.shared, self.own) + within(self.own)

    @property
    def places(self) -> Places:
        """[sum of widths], where in the row the tokens of the sequences are, sequence after sequence."""
        starts = np.cumsum(self.own) - self.own
        prompts = np.maximum.accumulate(np.where(self.shared == 0, starts, 0))
        position = within(self.widths)
        is_shared = position < np.repeat(self.shared, self.widths)
        return position + np.where(
            is_shared, np.repeat(prompts, self.widths), np.repeat(starts - self.shared, self.widths)
        )


def within(widths: Places) -> Places:
    """[sum of widths]: 0, 1, ... in each of parts that lie end to end."""
    return np.arange(widths.sum()) - np.repeat(np.cumsum(widths) - widths, widths)
