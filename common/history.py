"""What a run did lately, for whoever looks at it with nothing but the broker's address. The learner's logs hold all.

{run}:steps   list, the oldest first: the lines of its metrics log, the last KEPT_STEPS
{run}:groups  list: lines of its reward log, long texts shortened, the last KEPT_GROUPS
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from common.connection import BrokerFull
from common.shared_state import SharedState

KEPT_STEPS, KEPT_GROUPS = 1000, 64
LINE_BYTES = 2**20
"""What is longer is none of ours."""


class History(SharedState):
    """The learner remembers, everybody may look."""

    def remember(self, step: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
        """A step, and the groups trained or dropped since the one before. Raises BrokerFull: streams come first."""
        lines = [json.dumps(one, ensure_ascii=False) for one in (step, *groups[-KEPT_GROUPS:])]
        self._script("remember", ["steps", "groups"], [KEPT_STEPS, KEPT_GROUPS, *lines], (BrokerFull,))

    def steps(self, last: int = KEPT_STEPS) -> list[dict[str, Any]]:
        """The last ones of the surviving run, the oldest first: what a learner did again after a crash stands once."""
        found: list[dict[str, Any]] = []
        for line in self._lines("steps", last):
            if not isinstance(step := line.get("step"), int):
                continue
            while found and found[-1]["step"] >= step:
                found.pop()
            found.append(line)
        return found

    def groups(self, last: int = KEPT_GROUPS) -> list[dict[str, Any]]:
        """The last groups, the newest first. What stands in them a stranger may have written."""
        return self._lines("groups", last)[::-1]

    def _lines(self, name: str, last: int) -> list[dict[str, Any]]:
        found = []
        for raw in self._do("lrange", self.key(name), -last, -1):
            try:
                line = json.loads(raw) if len(raw) <= LINE_BYTES else None
            except (ValueError, RecursionError) as error:
                line = type(error).__name__
            if isinstance(line, dict):
                found.append(line)
            else:
                self._tell_foreign(name, f"{raw[:40]!r}")
        return found
