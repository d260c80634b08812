"""The fork server: `python -m scorer.fork_server CONTROL PARENT_PID KIND MEMORY_MB UNEVALUATED`.

It imports what judging needs and warms it up once, in 2 s; from then on a child is a fork of it, in
milliseconds. It reads no untrusted text and has one thread, so that a fork copies nothing that an answer
left behind and no lock that nobody will release.

    request  b"fork", with two handles: the child's socket, its page of progress
    reply    ["forked", pid] with a pidfd, or ["failed", reason]; the first, unasked: ["ready", null]

A pidfd goes with the number, because this process reaps: a number may be another process by the time that
the parent kills, a pidfd never is.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence

from common.lifecycle import die_with_parent
from scorer import child
from scorer.equivalence.compare import Options
from scorer.verifier import Kind, warm_up

FORK = b"fork"
REASON_CHARS = 4000
_NOT_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
"""What asks a group of processes to end is the parent's to handle: it ends us. Children inherit this."""


def main(control_fd: int, parent_pid: int, kind: Kind, memory_mb: int, options: Options) -> int:
    die_with(parent_pid)
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=control_fd)
    try:
        warm_up(kind)
    except Exception:
        control.send(reply("failed", traceback.format_exc(limit=-3)))
        return 1
    silence()
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page
    control.send(reply("ready", None))
    serve(control, kind, memory_mb, options)
    return 0


def serve(control: socket.socket, kind: Kind, memory_mb: int, options: Options) -> None:
    """Forks on request and reaps, until the parent closes its end; then ends the children that are left."""
    children: dict[int, int] = {}  # process id by pidfd
    events = select.poll()
    events.register(control, select.POLLIN)
    while True:
        for fd, _ in events.poll():
            if fd != control.fileno():
                events.unregister(fd)
                os.close(fd)
                os.waitpid(children.pop(fd), 0)
                continue
            request, handles, _, _ = socket.recv_fds(control, len(FORK), 2)
            if not request:
                for pid in children.values():
                    os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
                    os.waitpid(pid, 0)
                return
            try:
                pid = _fork([control.fileno(), *children], handles, kind, memory_mb, options)
                pidfd = os.pidfd_open(pid)
            except OSError as error:
                control.send(reply("failed", f"no child was forked: {error.strerror}"))
            else:
                children[pidfd] = pid
                events.register(pidfd, select.POLLIN)
                socket.send_fds(control, [reply("forked", pid)], [pidfd])
            finally:
                for handle in handles:
                    os.close(handle)


def _fork(ours: Sequence[int], handles: Sequence[int], kind: Kind, memory_mb: int, options: Options) -> int:
    """The process id of a new child, which has its own two handles alone, none of ours or of another child."""
    server = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with(server)
        for handle in ours:
            os.close(handle)
        status = child.main(handles[0], handles[1], kind, memory_mb, options)
    finally:
        os._exit(status)  # never back into the server's loop


def reply(status: str, value: int | str | None) -> bytes:
    return json.dumps([status, value[-REASON_CHARS:] if isinstance(value, str) else value]).encode()


def die_with(parent_pid: int) -> None:
    """Ends this process when its parent dies, even by SIGKILL and while it hangs in C code (Linux)."""
    die_with_parent()
    if os.getppid() != parent_pid:  # it died before the call
        os._exit(0)


def silence() -> None:
    """Parsers print what they read: untrusted text must reach no terminal and no log."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


if __name__ == "__main__":
    _control_fd, _parent_pid, _memory_mb = (int(sys.argv[at]) for at in (1, 2, 4))
    _options = Options(unevaluated=sys.argv[5] == "True")
    sys.exit(main(_control_fd, _parent_pid, sys.argv[3], _memory_mb, _options))  # type: ignore[arg-type]
