"""The loop of one verification child, in a process that `scorer.fork_server` has forked.

Requests and replies are lines of JSON over a socket pair. JSON, so that a child that untrusted text has
taken over can send its parent nothing but strings and numbers; a pickle would be code.

    request  [[gold, answer text, answer kind, meta], ...]   an answer of null checks the gold itself
    reply    [status, extracted, milliseconds, rule]         one per task, in order; the first, unasked: "ready"

To wake the parent for every reply costs a tenth of an answer, so quick replies travel together. Which answer
a child was at when it hung or died stands in a page of memory that both see: the number of tasks begun, and
the CPU time at which the last one was.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import socket
import struct
import time
from typing import Any

from scorer.answers import Answer
from scorer.equivalence.compare import Options
from scorer.verifier import Kind, Verdict, gold_problem, judge

OUT_OF_MEMORY = 71
"""Exit status after a MemoryError: the heap of such a process is not trusted with the next answer."""
FLUSH_SECONDS = 0.02
"""A finished reply waits no longer for the next one, unless that one's answer hangs."""
PROGRESS = struct.Struct("<QQ")
"""Tasks begun since the start; nanoseconds of CPU that the process had used when it began the last one."""


def main(socket_fd: int, progress_fd: int, kind: Kind, memory_mb: int, options: Options) -> int:
    """Serves until the parent closes its end; returns the exit status."""
    connection = socket.socket(fileno=socket_fd)
    progress = mmap.mmap(progress_fd, PROGRESS.size)
    os.close(progress_fd)
    limit_memory(memory_mb)
    connection.sendall(line("ready", None))
    try:
        serve(kind, options, connection, progress)
    except MemoryError:
        return OUT_OF_MEMORY
    return 0


def serve(kind: Kind, options: Options, connection: socket.socket, progress: mmap.mmap) -> None:
    begun = 0
    for request in connection.makefile("rb"):
        replies, flushed = b"", time.monotonic()
        for task in json.loads(request):
            begun += 1
            PROGRESS.pack_into(progress, 0, begun, time.process_time_ns())
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


def limit_memory(memory_mb: int) -> None:
    """Caps the address space at what it is now plus `memory_mb`; a crash leaves no core file."""
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    cap = now + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
