"""The objects of a log of JSON lines, each once, as they come; what is damaged is counted and named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from common.untrusted import printable
from deploy.recorded import parts

LONGEST_BYTES = 128 * 2**20
"""Of a line: twice what the wire lets through."""
TOLD_EVERY_BYTES = 2**20
NAMED = 5
"""Of the damaged lines, so many are named."""


class Lines:
    """Goes on, at each call of `new`, where it was; a file that was rotated meanwhile is read to its end first.

    The last file stays open in between, so that no other can take its inode.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at: BinaryIO | None = None
        self._name, self._number = file.name, 0
        self.bad: list[str] = []
        """The first NAMED damaged lines: file, line and reason."""
        self.bad_count = 0
        self.half_bytes = 0
        """Of a last line that is still being written."""

    @property
    def unread_bytes(self) -> int:
        with ExitStack() as stack:
            files = self._unread(stack)
            sizes = sum(os.fstat(file.fileno()).st_size for file in files)
        return sizes - (self._at.tell() if self._at else 0)

    def new(self, told: Callable[[int], None] = lambda count: None) -> Iterator[dict[str, Any]]:
        """What came since the last time, oldest first; `told` hears the bytes that were read."""
        with ExitStack() as stack:
            for file in self._unread(stack):
                if self._at is None or not os.path.sameopenfile(file.fileno(), self._at.fileno()):
                    if self.half_bytes:
                        self._damaged("it was cut off")
                    self.close()
                    self._at = os.fdopen(os.dup(file.fileno()), "rb")
                    self._name, self._number, self.half_bytes = Path(file.name).name, 0, 0
                yield from self._whole(self._at, told)

    def close(self) -> None:
        if self._at:
            self._at.close()
        self._at = None

    def _unread(self, stack: ExitStack) -> list[BinaryIO]:
        """From the file that we are in to the newest, opened.

        The newest is opened first: a rotation in between shows a file twice then, and none is missed.
        """
        found: list[BinaryIO] = []
        for path in reversed(parts(self._file)):
            try:
                file = stack.enter_context(path.open("rb"))
            except FileNotFoundError:
                continue
            if any(os.path.sameopenfile(file.fileno(), other.fileno()) for other in found):
                continue
            found.append(file)
            if self._at and os.path.sameopenfile(file.fileno(), self._at.fileno()):
                return found[::-1]
        if self._at:
            found.append(self._at)  # it was deleted meanwhile, its rest is still there
        return found[::-1]

    def _whole(self, file: BinaryIO, told: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        said = start = file.tell()
        while True:
            line = file.readline(LONGEST_BYTES)
            too_long = len(line) == LONGEST_BYTES and not line.endswith(b"\n")
            while too_long and line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_BYTES)
            if not line.endswith(b"\n"):
                self.half_bytes = file.tell() - start
                file.seek(start)
                break
            self._number += 1
            start = file.tell()
            found = None if too_long else self._object(line)
            if too_long:
                self._damaged(f"it has more than {LONGEST_BYTES >> 20} MiB")
            if start - said >= TOLD_EVERY_BYTES:
                told(start - said)
                said = start
            if found is not None:
                yield found
        told(start - said)

    def _object(self, line: bytes) -> dict[str, Any] | None:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._damaged(str(error))
            return None
        if not isinstance(found, dict):
            self._damaged("it is no object")
            return None
        return found

    def _damaged(self, reason: str) -> None:
        self.bad_count += 1
        if len(self.bad) < NAMED:
            self.bad.append(f"{self._name}, line {self._number}: {printable(reason[:120])}")
