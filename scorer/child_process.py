"""One verification child as its parent sees it: forked, asked, watched, ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

from scorer.child import FLUSH_SECONDS, PROGRESS
from scorer.fork_server_process import FORK_SECONDS, ForkServer
from scorer.verifier import Status, Verdict

MAX_REPLY_BYTES = 65_536
_REPLY_TYPES = ([str, str, float, str], [str, type(None), float, str])
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

Task = tuple[str, str | None, str | None, Mapping[str, str]]
"""(gold, answer text, answer kind, meta), as `scorer.child` reads it; no text: check the gold."""


class ChildProcess:
    """One process that runs `scorer.child`, and the parent's side of what they share."""

    def __init__(self, server: ForkServer) -> None:
        """Raises OSError or ValueError with the reason when there is no child."""
        self.tasks = 0
        self._socket, theirs = socket.socketpair()
        # Read, not mapped: a child that cuts it short would send a mapping parent SIGBUS.
        self._progress = os.memfd_create("progress")
        try:
            os.ftruncate(self._progress, PROGRESS.size)
            self.pid, self._pidfd = server.fork([theirs.fileno(), self._progress])
        except (OSError, ValueError):
            self._socket.close()
            os.close(self._progress)
            raise
        finally:
            theirs.close()
        self._come = b""
        """What has come of the replies that are not taken yet."""
        self._ends: float | None = None
        """When the first reply to a request is due at the latest; None for those after it."""

    def wait_until_ready(self) -> None:
        """Raises OSError or ValueError with the reason when the child cannot work."""
        status, _, _, _ = self._reply(time.monotonic() + FORK_SECONDS)
        if status != "ready":
            raise ValueError(f"a child began with {status[:40]!r}")

    def send(self, tasks: list[Task], deadline_s: float) -> None:
        """Raises OSError when the child is gone, and TimeoutError when it is stopped and its buffer full.

        What sending takes of the deadline, the first answer lacks.
        """
        self.tasks += len(tasks)
        self._ends = time.monotonic() + deadline_s + FLUSH_SECONDS
        self._socket.settimeout(deadline_s)
        self._socket.sendall(json.dumps(tasks, default=dict).encode() + b"\n")

    def receive(self, deadline_s: float) -> Verdict:
        """The next verdict. Raises TimeoutError, ValueError when the child died or talks nonsense, else OSError."""
        ends, self._ends = self._ends or time.monotonic() + deadline_s + FLUSH_SECONDS, None
        status, extracted, milliseconds, rule = self._reply(ends)
        if status not in get_args(Status):
            raise ValueError(f"a child answered with the status {status[:40]!r}")
        return Verdict(cast(Status, status), extracted, milliseconds, rule)

    def begun(self) -> int:
        """Tasks that the child has begun since its start, of the `tasks` that it was sent."""
        return self._read_progress()[0]

    def computed(self) -> float:
        """CPU-seconds that the child has spent on the task that it began last; 0 when it has ended."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        if self._has_ended():  # and the number may be another's
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND - self._read_progress()[1] / 1e9

    def end(self) -> None:
        """Kills it. Its memory may take the kernel a while; nobody waits for that, and the server reaps it."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended, and the server has reaped it
        self._socket.close()
        os.close(self._progress)
        os.close(self._pidfd)

    def _has_ended(self) -> bool:
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        return bool(ended.poll(0))

    def _read_progress(self) -> tuple[int, int]:
        page = os.pread(self._progress, PROGRESS.size, 0)
        return PROGRESS.unpack(page) if len(page) == PROGRESS.size else (0, 0)

    def _reply(self, ends: float) -> tuple[str, str | None, float, str]:
        line = self._line(ends)
        reply = json.loads(line) if line else "the child died"
        if not (isinstance(reply, list) and [type(part) for part in reply] in _REPLY_TYPES):
            raise ValueError(f"a child's reply is not [status, text, milliseconds, rule]: {reply!r:.80}")
        return reply[0], reply[1], reply[2], reply[3]

    def _line(self, ends: float) -> bytes:
        """The next line, empty when the child died. TimeoutError at `ends`, however slowly it drips."""
        while b"\n" not in self._come:
            left = ends - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if len(self._come) > MAX_REPLY_BYTES:
                raise ValueError(f"a child's reply is longer than {MAX_REPLY_BYTES} bytes")
            self._socket.settimeout(left)
            part = self._socket.recv(MAX_REPLY_BYTES)
            if not part:
                return b""
            self._come += part
        line, _, self._come = self._come.partition(b"\n")
        return line
