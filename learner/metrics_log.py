"""The metrics log: every step of the learner as one JSON object a line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from learner.json_lines import JsonLines
from learner.ledger import Ledger

log = structlog.get_logger("learner")


class MetricsLog:
    """Appends to `file`; a step that is done again after a crash has two lines."""

    def __init__(self, file: Path) -> None:
        self._lines = JsonLines(file)

    def write(
        self, step: int, metrics: Mapping[str, Any], seconds: Mapping[str, float], ledger: Ledger
    ) -> dict[str, Any]:
        """One step: its batch, wall time by part, and the audited books after it. Returns the line. Raises DiskFull."""
        line = {
            "step": step,
            "time": time.time(),
            **metrics,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "tickets": ledger.audit(),
            "drops": dict(ledger.drops),
        }
        self._lines.write(line)
        log.debug("step", **{name: line[name] for name in ("step", "reward_mean", "accuracy", "staleness_max")})
        return line

    def close(self) -> None:
        self._lines.close()
