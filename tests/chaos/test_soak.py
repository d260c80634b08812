"""A soak short enough for every change; `python -m tests.chaos.soak` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.audit import FINDINGS
from tests.chaos.soak import soak


@pytest.mark.timeout(900)  # under three minutes on two quiet cores
def test_no_ticket_is_lost_or_trained_twice_under_kills(tmp_path: Path) -> None:
    result = soak(tmp_path, seed=0, kills=25, minutes=8)
    assert result["kills"] >= 25 and result["learner_kills"] >= 2 and result["steps"] >= 3
    assert [name for name in FINDINGS if result[name]] == []
    assert result["issued"] == sum(result[name] for name in ("trained", "dropped", "dead_lettered", "in_flight"))
    assert result["trained"] == 4 * result["steps"]
