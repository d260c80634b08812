import pytest

from common.errors import Diverged
from learner.skips import Skips


def test_a_skipped_batch_is_told_by_its_tickets() -> None:
    skips = Skips(3)
    skips.saw(0, [1, 2])
    assert skips.counts == {"skipped_steps": 0}
    skips.saw(2, [3, 4])
    assert skips.counts == {"skipped_steps": 2, "skipped_tickets": [3, 4]}


def test_only_a_row_of_them_ends_the_run_and_names_its_tickets() -> None:
    skips = Skips(3)
    for skipped, tickets in ((1, [1]), (1, [2]), (0, [3]), (1, [4]), (4, [5])):
        skips.saw(skipped, tickets)
    with pytest.raises(Diverged, match=r"3 batches in a row .* tickets \[6\], the first of \[4\]"):
        skips.saw(1, [6])
