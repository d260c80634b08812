"""A run in which nothing fits does not go on for ever."""

from __future__ import annotations

import pytest

from common.errors import ModelError
from learner.misfits import BATCHES, Misfits


def test_nothing_but_misfits_end_the_run_and_one_that_fits_forgives_all() -> None:
    misfits, most = Misfits(groups_per_step=2), BATCHES * 2
    for _ in range(2):
        for _ in range(most - 1):
            misfits.saw("its token ids are 0 to 300")
        misfits.saw(None)
    for _ in range(most - 1):
        misfits.saw("its token ids are 0 to 300")
    with pytest.raises(ModelError, match=f"the last {most} groups .* the newest since its token ids are 7 to 400;"):
        misfits.saw("its token ids are 7 to 400")
