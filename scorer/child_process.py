"""One verification child as its parent sees it: started, asked, watched, ended."""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

from scorer.child import FLUSH_SECONDS, PROGRESS_BYTES
from scorer.verifier import Kind, Status, Verdict

START_SECONDS = 60.0
"""A child imports its libraries in 2 s; a loaded machine may take much longer."""
SEND_SECONDS = 10.0
MAX_REPLY_BYTES = 65_536
_REPLY_TYPES = ([str, str, float, str], [str, type(None), float, str])

Task = tuple[str, str | None, str | None, Mapping[str, str]]
"""(gold, answer text, answer kind, meta), as `scorer.child` reads it; no text: check the gold."""


class ChildProcess:
    """One process that runs `scorer.child`, and the parent's side of what they share."""

    def __init__(self, verifier: Kind, memory_mb: int, unevaluated: bool) -> None:
        self.tasks = 0
        self._socket, theirs = socket.socketpair()
        self._lines = self._socket.makefile("rb")
        progress = os.memfd_create("progress")
        try:
            os.ftruncate(progress, PROGRESS_BYTES)
            self._progress = mmap.mmap(progress, PROGRESS_BYTES)
            handles = [theirs.fileno(), progress]
            arguments = [*map(str, handles), str(os.getpid()), verifier, str(memory_mb), str(unevaluated)]
            # A fresh interpreter and not multiprocessing's spawn, which would import the parent's main module.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scorer.child", *arguments],
                pass_fds=handles,
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        finally:
            os.close(progress)
            theirs.close()

    def wait_until_ready(self) -> None:
        """Raises OSError or ValueError with the reason when the child cannot work."""
        self._socket.settimeout(START_SECONDS)
        status, reason, _, _ = self._reply()
        if status != "ready":
            raise OSError(reason)

    def send(self, tasks: list[Task]) -> None:
        """Raises OSError when the child is gone, or stopped and its buffer full."""
        self.tasks += len(tasks)
        self._socket.settimeout(SEND_SECONDS)
        self._socket.sendall(json.dumps(tasks, default=dict).encode() + b"\n")

    def receive(self, deadline_s: float) -> Verdict:
        """The next verdict. Raises TimeoutError, ValueError when the child died or talks nonsense, else OSError."""
        self._socket.settimeout(deadline_s + FLUSH_SECONDS)
        status, extracted, milliseconds, rule = self._reply()
        if status not in get_args(Status):
            raise ValueError(f"a child answered with the status {status[:40]!r}")
        return Verdict(cast(Status, status), extracted, milliseconds, rule)

    def begun(self) -> int:
        """Tasks that the child has begun since its start, of the `tasks` that it was sent."""
        return int.from_bytes(self._progress[:], "little")

    def _reply(self) -> tuple[str, str | None, float, str]:
        line = self._lines.readline(MAX_REPLY_BYTES)
        reply = json.loads(line) if line else "the child died"
        if not (isinstance(reply, list) and [type(part) for part in reply] in _REPLY_TYPES):
            raise ValueError(f"a child's reply is not [status, text, milliseconds, rule]: {reply!r:.80}")
        return reply[0], reply[1], reply[2], reply[3]

    def end(self) -> None:
        self.process.kill()
        self.process.wait(timeout=START_SECONDS)
        self._lines.close()
        self._socket.close()
        self._progress.close()


def _environment() -> dict[str, str]:
    """What a child needs and nothing else: no broker address, no token, no proxy."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    root = str(Path(__file__).resolve().parents[1])
    return {**kept, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"}
