"""A file of JSON objects, one a line: whole lines only, whatever dies or fills up. Rotated, bounded in size."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.disk import is_full
from common.errors import DiskFull


class JsonLines:
    """Appends to `file`; what is older than `limit_bytes` is in file.1 and so on, `files` in all."""

    def __init__(self, file: Path, limit_bytes: int | None = None, files: int = 1) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._limit, self._files = file, limit_bytes, files
        self._open()

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends one object. Raises DiskFull, and then nothing of it is in the file."""
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        if self._limit and self._size and self._size + len(data) > self._limit:
            self._rotate()
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            full = is_full(error, self._file.parent)
            os.ftruncate(self._descriptor, self._size)
            if full:
                raise DiskFull(f"no space left for {self._file}; free some") from error
            raise
        self._size += len(data)

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self) -> None:
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = os.fstat(self._descriptor).st_size
        self._cut_torn_line()

    def _cut_torn_line(self) -> None:
        """Whoever was killed in mid-write left half a line, and ours would continue it."""
        end = self._size
        while end and not (tail := os.pread(self._descriptor, min(end, 4096), max(0, end - 4096))).endswith(b"\n"):
            end -= len(tail) - (tail.rfind(b"\n") + 1)
        if end < self._size:
            os.ftruncate(self._descriptor, end)
            self._size = end

    def _rotate(self) -> None:
        self.close()
        names = [self._file, *(self._file.with_name(f"{self._file.name}.{n}") for n in range(1, self._files))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)
        self._open()


def lines_by_step(file: Path) -> list[dict[str, Any]]:
    """One line of metrics.jsonl or eval.jsonl for each step; of a step that was repeated after a resume, the last."""
    lines = file.read_text().splitlines() if file.is_file() else []
    by_step = {line["step"]: line for line in map(json.loads, lines)}
    return [by_step[step] for step in sorted(by_step)]
