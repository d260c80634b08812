"""The loop of one verification child: `python -m scorer.child FD PARENT_PID KIND MEMORY_MB`.

Requests and replies are lines of JSON over a socket pair. JSON, so that a child that untrusted text has taken over
can send its parent nothing but strings and numbers; a pickle would be code.

    request  [[gold, answer text, answer kind, meta], ...]   an answer of null checks the gold itself
    reply    [status, extracted, milliseconds]               one per task, as soon as it is done
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import traceback
from typing import Any

from scorer.answers import Answer
from scorer.verifier import Kind, Verdict, gold_problem, judge, warm_up

OUT_OF_MEMORY = 71
"""Exit status after a MemoryError: the heap of such a process is not trusted with the next answer."""
_PR_SET_PDEATHSIG = 1


def main(fd: int, parent_pid: int, kind: Kind, memory_mb: int) -> int:
    die_with(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection = socket.socket(fileno=fd)
    try:
        warm_up(kind)
        limit_memory(memory_mb)
    except Exception:
        reply(connection, "failed", traceback.format_exc(limit=-3))
        return 1
    silence()
    reply(connection, "ready", None)
    requests = connection.makefile("rb")
    while line := requests.readline():
        try:
            for task in json.loads(line):
                verdict = answer_to(kind, *task)
                reply(connection, verdict.status, verdict.extracted, verdict.milliseconds)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
    return 0  # the parent closed its end


def reply(connection: socket.socket, status: str, text: str | None, milliseconds: float = 0.0) -> None:
    connection.sendall(json.dumps([status, text, round(milliseconds, 3)]).encode() + b"\n")


def answer_to(kind: Kind, gold: str, text: str | None, how: Any, meta: dict[str, str]) -> Verdict:
    try:
        if text is None:
            problem = gold_problem(gold)
            return Verdict("unparsable" if problem else "correct", problem, 0.0)
        return judge(kind, gold, Answer(text, how), meta)
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
    _fd, _parent_pid, _kind, _memory_mb = sys.argv[1:]
    sys.exit(main(int(_fd), int(_parent_pid), _kind, int(_memory_mb)))  # type: ignore[arg-type]
