"""The metrics log: every step of the learner as one JSON object a line."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from learner.ledger import Ledger

log = structlog.get_logger("learner")


class MetricsLog:
    """Appends to `file`; a step that is done again after a crash has two lines."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="utf-8")

    def write(
        self, step: int, metrics: Mapping[str, Any], seconds: Mapping[str, float], skipped_steps: int, ledger: Ledger
    ) -> None:
        """One step: what its batch looked like, wall time by part, and the audited books after it."""
        line = {
            "step": step,
            "time": time.time(),
            **metrics,
            "skipped_steps": skipped_steps,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "tickets": ledger.audit(),
            "drops": dict(ledger.drops),
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        log.debug("step", **{name: line[name] for name in ("step", "reward_mean", "accuracy", "staleness_max")})

    def close(self) -> None:
        self._file.close()
