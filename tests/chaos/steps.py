"""How far a run has come, as its metrics file says."""

from __future__ import annotations

import time
from pathlib import Path


class Steps:
    """Lines of the metrics file, lost branches included, and the longest time without a new one."""

    def __init__(self, file: Path) -> None:
        self._file, self._bytes, self._since = file, 0, time.monotonic()
        self.count, self.longest_gap_s = 0, 0.0

    def look(self) -> int:
        """The lines so far; reads what is new."""
        if self._file.exists():
            with self._file.open("rb") as lines:
                lines.seek(self._bytes)
                new = lines.read()
            self._bytes += len(new)
            now = time.monotonic()
            if new and self.count:
                self.longest_gap_s = max(self.longest_gap_s, now - self._since)
            if new:
                self._since = now
            self.count += new.count(b"\n")
        return self.count
