"""The fork server as its parent sees it: started at first need and again after its death, asked for children, ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from scorer.fork_server import FORK
from scorer.verifier import Kind

START_SECONDS = 60.0
"""It imports its libraries in 2 s; a loaded machine may take much longer."""
FORK_SECONDS = 10.0
"""A fork takes milliseconds: a server that takes so long is stopped."""
END_SECONDS = 2.0
_REPLY_BYTES = 65_536


class ForkServer:
    """Children for one sandbox, from a server of its own; usable from several threads at once.

    The kernel sends a parent-death signal when the *thread* ends that started a process: every thread that
    calls `fork` must live until `close`.
    """

    def __init__(self, verifier: Kind, memory_mb: int, unevaluated: bool) -> None:
        self._arguments = (verifier, str(memory_mb), str(unevaluated))
        self._turn = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fork(self, handles: Sequence[int]) -> tuple[int, int]:
        """(process id, pidfd) of a new child that got these handles: its socket, its page of progress.

        Raises OSError or ValueError with the reason when there is none; the next call starts a new server if
        this one is at fault.
        """
        with self._turn:
            try:
                control = self._control or self._start()
                control.settimeout(FORK_SECONDS)
                socket.send_fds(control, [FORK], handles)
                status, value, pidfds = _reply(control)
            except (OSError, ValueError):
                self._end()
                raise
        if status != "forked":
            raise OSError(value)
        if not pidfds:
            raise OSError("no handle for a child: too many files are open")
        return int(value), pidfds[0]

    def close(self) -> None:
        """Ends the server and with it every child, also while somebody waits for one; `fork` raises OSError then."""
        with self._closing:
            self._closed = True
            if self._control is not None:
                self._control.shutdown(socket.SHUT_RDWR)  # a server that is well ends and reaps its children
        with self._turn:
            if self._process is not None:
                try:
                    self._process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    pass  # it is stopped, or was still at its imports
            self._end()

    def _start(self) -> socket.socket:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            with self._closing:
                if self._closed:
                    control.close()
                    raise OSError("the fork server was closed")
                self._control = control
            # A fresh interpreter and not multiprocessing's, which would import the parent's main module.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scorer.fork_server", str(theirs.fileno()), str(os.getpid()), *self._arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        control.settimeout(START_SECONDS)
        status, value, _ = _reply(control)
        if status != "ready":
            raise OSError(value)
        return control

    def _end(self) -> None:
        """Kills the server if it still runs; the kernel kills its children."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        with self._closing:
            if self._control is not None:
                self._control.close()
            self._control = self._process = None


def _reply(control: socket.socket) -> tuple[str, str, list[int]]:
    message, handles, _, _ = socket.recv_fds(control, _REPLY_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    if not message:
        raise OSError("the fork server died")
    status, value = json.loads(message)
    return status, str(value), handles


def _environment() -> dict[str, str]:
    """What children need and nothing else: no broker address, no token, no proxy."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    root = str(Path(__file__).resolve().parents[1])
    return {**kept, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"}
