"""The loop of one verification child: `python -m scorer.child SOCKET PROGRESS PARENT_PID KIND MEMORY_MB UNEVALUATED`.

Requests and replies are lines of JSON over a socket pair. JSON, so that a child that untrusted text has
taken over can send its parent nothing but strings and numbers; a pickle would be code.

    request  [[gold, answer text, answer kind, meta], ...]   an answer of null checks the gold itself
    reply    [status, extracted, milliseconds, rule]         one per task, in order

To wake the parent for every reply costs a tenth of an answer, so quick replies travel together. Which answer
a child was at when it hung or died stands in a page of memory that both see: the number of tasks begun.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import sys
import time
import traceback
from typing import Any

from scorer.answers import Answer
from scorer.equivalence.compare import Options
from scorer.verifier import Kind, Verdict, gold_problem, judge, warm_up

OUT_OF_MEMORY = 71
"""Exit status after a MemoryError: the heap of such a process is not trusted with the next answer."""
FLUSH_SECONDS = 0.02
"""A finished reply waits no longer for the next one, unless that one's answer hangs."""
PROGRESS_BYTES = 8
_PR_SET_PDEATHSIG = 1


def main(socket_fd: int, progress_fd: int, parent_pid: int, kind: Kind, memory_mb: int, options: Options) -> int:
    die_with(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection = socket.socket(fileno=socket_fd)
    try:
        warm_up(kind)
        limit_memory(memory_mb)
    except Exception:
        connection.sendall(line("failed", traceback.format_exc(limit=-3)))
        return 1
    silence()
    connection.sendall(line("ready", None))
    try:
        serve(kind, options, connection, mmap.mmap(progress_fd, PROGRESS_BYTES))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    return 0  # the parent closed its end


def serve(kind: Kind, options: Options, connection: socket.socket, progress: mmap.mmap) -> None:
    begun = 0
    for request in connection.makefile("rb"):
        replies, flushed = b"", time.monotonic()
        for task in json.loads(request):
            begun += 1
            progress[:] = begun.to_bytes(PROGRESS_BYTES, "little")
            verdict = answer_to(kind, options, *task)
            replies += line(verdict.status, verdict.extracted, verdict.milliseconds, verdict.rule)
            if time.monotonic() > flushed + FLUSH_SECONDS:
                connection.sendall(replies)
                replies, flushed = b"", time.monotonic()
        connection.sendall(replies)


def line(status: str, text: str | None, milliseconds: float = 0.0, rule: str = "") -> bytes:
    return json.dumps([status, text, round(milliseconds, 3), rule]).encode() + b"\n"


def answer_to(kind: Kind, options: Options, gold: str, text: str | None, how: Any, meta: dict[str, str]) -> Verdict:
    try:
        if text is None:
            problem = gold_problem(kind, gold)
            return Verdict("unparsable" if problem else "correct", problem, 0.0)
        return judge(kind, gold, Answer(text, how), meta, options)
    except MemoryError:
        raise
    except Exception as error:
        # The library failed in a way that it does not handle itself; it would fail so again.
        return Verdict("error", type(error).__name__, 0.0)


def die_with(parent_pid: int) -> None:
    """Ends this process when its parent dies, even by SIGKILL and while it hangs in C code (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the call
        os._exit(0)


def limit_memory(memory_mb: int) -> None:
    """Caps the address space at what it is now plus `memory_mb`; a crash leaves no core file."""
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    cap = now + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def silence() -> None:
    """Parsers print what they read: untrusted text must reach no terminal and no log."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


if __name__ == "__main__":
    _socket_fd, _progress_fd, _parent_pid, _memory_mb = (int(sys.argv[at]) for at in (1, 2, 3, 5))
    _options = Options(unevaluated=sys.argv[6] == "True")
    sys.exit(main(_socket_fd, _progress_fd, _parent_pid, sys.argv[4], _memory_mb, _options))  # type: ignore[arg-type]
