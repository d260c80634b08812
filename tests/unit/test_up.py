"""What `hero up` gives to the processes that it starts."""

from __future__ import annotations

from itertools import islice

import pytest

from common.settings import Sections
from deploy.up import _ports


@pytest.mark.parametrize(
    ("port", "flags"),
    [
        (9100, [["--metrics.port", "9100"], ["--metrics.port", "9101"], ["--metrics.port", "9102"]]),
        (0, [[], [], []]),  # free ports, by the file
        (None, [[], [], []]),
    ],
)
def test_each_process_has_a_port_of_its_own(port: int | None, flags: list[list[str]]) -> None:
    assert list(islice(_ports(Sections.model_validate({"metrics": {"port": port}})), 3)) == flags
