"""A log line that cannot be written ends nothing."""

from __future__ import annotations

import json
import sys

import pytest
import structlog

from common import logs
from tests.small_disk import SmallDisk


def test_lines_are_lost_on_a_full_disk_and_nothing_else(small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small_disk.folder / "log"
    with file.open("w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        logs.start("test")
        log = structlog.get_logger("test")
        log.info("before")
        small_disk.fill()
        for _ in range(300):  # more than the rest of the file's last page takes
            log.info("lost", text="x" * 1000)
        small_disk.free()
        log.info("after")
    lines = file.read_text().splitlines()
    assert json.loads(lines[0])["event"] == "before"
    assert json.loads(lines[-1])["event"] == "after"
